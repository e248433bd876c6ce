package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// datagrams sends over UDP, many with one system call.
//
// Its socket is not among those that Go's runtime waits for: on the loopback
// interface the kernel would wake the runtime for every datagram that a
// receiver has read, which costs more than to send it.
type datagrams struct {
	fd    int
	peer  net.Addr
	heads []mmsghdr
	iovs  []unix.Iovec
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// newDatagrams takes over a connected socket.
func newDatagrams(conn *net.UDPConn) (*datagrams, error) {
	defer conn.Close()
	d := &datagrams{peer: conn.RemoteAddr(), heads: make([]mmsghdr, burst), iovs: make([]unix.Iovec, burst)}
	for i := range d.heads {
		d.heads[i].hdr.Iov = &d.iovs[i]
		d.heads[i].hdr.SetIovlen(1)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := raw.Control(func(fd uintptr) { d.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(d.fd, false); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), d.Close())
	}
	const room = 4 << 20 // several bursts; less does no harm
	if unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, room)
	}
	return d, nil
}

func (d *datagrams) Close() error { return unix.Close(d.fd) }

// send sends. A receiver that is not there is an error; a queue that is full
// for the moment is none.
func (d *datagrams) send(packets [][]byte) (int, error) {
	for i, p := range packets {
		d.iovs[i].Base = &p[0]
		d.iovs[i].SetLen(len(p))
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(d.fd), uintptr(unsafe.Pointer(&d.heads[0])), uintptr(len(packets)), 0, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR, unix.EAGAIN, unix.ENOBUFS:
		return 0, nil
	case unix.ECONNREFUSED:
		return 0, fmt.Errorf("nobody listens at %s: %w", d.peer, errno)
	}
	return 0, os.NewSyscallError("sendmmsg", errno)
}
