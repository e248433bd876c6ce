package listen

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is room for the two control messages we ask for.
const controlSize = 64

// receiver reads up to batchSize datagrams with one recvmmsg. The call is
// written out here, for the one of golang.org/x/net allocates an address for
// every datagram, and we ask for the address of bad ones only.
type receiver struct {
	conn  syscall.RawConn
	read  func(fd uintptr) bool // r.recvmmsg, made once
	n     int                   // datagrams of the last read
	errno syscall.Errno

	heads   []mmsghdr
	iovs    []unix.Iovec
	names   []unix.RawSockaddrInet6 // has room for IPv4, too
	control []byte
	buf     []byte

	drops uint32 // what the kernel dropped since the socket was opened
	fresh uint64 // what of it lost has not told yet
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// newReceiver prepares to read from conn, and has the kernel say when each
// datagram came and how many were dropped before it.
func newReceiver(conn *net.UDPConn) (*receiver, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &receiver{
		conn:    raw,
		heads:   make([]mmsghdr, batchSize),
		iovs:    make([]unix.Iovec, batchSize),
		names:   make([]unix.RawSockaddrInet6, batchSize),
		control: make([]byte, batchSize*controlSize),
		buf:     make([]byte, batchSize*datagramSize),
	}
	r.read = r.recvmmsg
	for i := range r.heads {
		r.iovs[i].Base = &r.buf[i*datagramSize]
		r.iovs[i].SetLen(datagramSize)
		h := &r.heads[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.control[i*controlSize]
	}
	r.n = batchSize
	r.rearm()
	for _, opt := range []int{unix.SO_RXQ_OVFL, unix.SO_TIMESTAMPNS} {
		if err := setsockopt(raw, opt, 1); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// rearm tells the kernel the sizes again that the last read overwrote.
func (r *receiver) rearm() {
	for i := range r.heads[:r.n] {
		h := &r.heads[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	r.n = 0
}

// receive waits for datagrams and reports how many it read. They hold until
// the next call.
func (r *receiver) receive() (int, error) {
	r.rearm()
	if err := r.conn.Read(r.read); err != nil {
		return 0, err
	}
	if r.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", r.errno)
	}
	r.countDrops()
	return r.n, nil
}

// poll is receive without waiting. 0 is nothing there, or trouble.
func (r *receiver) poll() int {
	r.rearm()
	if err := r.conn.Control(func(fd uintptr) { r.recvmmsg(fd) }); err != nil {
		return 0
	}
	r.countDrops()
	return r.n
}

// recvmmsg is the system call. It is false if there is nothing to read yet.
func (r *receiver) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.heads[0])), batchSize, 0, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			r.n = int(n)
		}
		r.errno = errno
		return true
	}
}

// datagram is the i-th datagram of the last read, and whether it was longer.
func (r *receiver) datagram(i int) (b []byte, cut bool) {
	return r.buf[i*datagramSize:][:r.heads[i].n], r.heads[i].hdr.Flags&unix.MSG_TRUNC != 0
}

// from is who sent it.
func (r *receiver) from(i int) netip.AddrPort {
	sa := &r.names[i]
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	switch sa.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr
		return netip.AddrPortFrom(netip.AddrFrom4(a), binary.BigEndian.Uint16(port[:]))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), binary.BigEndian.Uint16(port[:]))
	}
	return netip.AddrPort{}
}

// at is when it came, as the kernel saw it.
func (r *receiver) at(i int) time.Time {
	if b := r.controlOf(i, unix.SCM_TIMESTAMPNS); len(b) >= int(unsafe.Sizeof(unix.Timespec{})) {
		ts := (*unix.Timespec)(unsafe.Pointer(&b[0]))
		return time.Unix(ts.Unix())
	}
	return time.Now()
}

// lost is how many datagrams the kernel dropped since lost was asked last, as
// far as the datagrams behind them have told.
func (r *receiver) lost() uint64 {
	n := r.fresh
	r.fresh = 0
	return n
}

// countDrops reads the kernel's counter, which wraps, off the last datagram.
func (r *receiver) countDrops() {
	if r.n == 0 {
		return
	}
	if b := r.controlOf(r.n-1, unix.SO_RXQ_OVFL); len(b) >= 4 {
		drops := binary.NativeEndian.Uint32(b)
		r.fresh += uint64(drops - r.drops)
		r.drops = drops
	}
}

// controlOf is the data of a control message that came with a datagram.
func (r *receiver) controlOf(i int, typ int32) []byte {
	b := r.control[i*controlSize:][:r.heads[i].hdr.Controllen]
	for len(b) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return nil
		}
		if h.Level == unix.SOL_SOCKET && h.Type == typ {
			return data
		}
		b = rest
	}
	return nil
}

// growRcvBuf asks for size bytes, beyond the system's limit if we may, and
// reports what there is now.
func growRcvBuf(conn *net.UDPConn, size int) (got int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	if setsockopt(raw, unix.SO_RCVBUFFORCE, size) != nil {
		if err := setsockopt(raw, unix.SO_RCVBUF, size); err != nil {
			return 0, err
		}
	}
	if cerr := raw.Control(func(fd uintptr) {
		got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	}); cerr != nil {
		return 0, cerr
	}
	return got / 2, os.NewSyscallError("getsockopt", err) // the kernel doubles it for its own needs
}

func setsockopt(raw syscall.RawConn, opt, value int) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, opt, value)
	}); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("setsockopt", err)
}

// isPassing reports whether the socket is good though a read gave err.
func isPassing(err error) bool {
	return errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ECONNREFUSED)
}
