package forward

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// sender sends many datagrams with one system call. It does not allocate.
type sender struct {
	batch *ipv4.PacketConn // also good for IPv6 sockets
	raw   syscall.RawConn
	msgs  []ipv4.Message

	ask *asking
}

// asking is the question for the error of a socket, made once.
type asking struct {
	errno int
	err   error
	fn    func(fd uintptr)
}

func newSender(conn *net.UDPConn) (sender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return sender{}, err
	}
	s := sender{batch: ipv4.NewPacketConn(conn), raw: raw, msgs: make([]ipv4.Message, batchSize), ask: &asking{}}
	views := make([][]byte, batchSize)
	for i := range s.msgs {
		s.msgs[i].Buffers = views[i : i+1 : i+1]
	}
	s.ask.fn = func(fd uintptr) {
		s.ask.errno, s.ask.err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	}
	return s, nil
}

func (s sender) write(msgs [][]byte) (int, error) {
	n := min(len(msgs), len(s.msgs))
	for i := range n {
		s.msgs[i].Buffers[0] = msgs[i]
	}
	return s.batch.WriteBatch(s.msgs[:n], 0)
}

// pending asks the kernel, which tells each error once.
func (s sender) pending() error {
	if err := s.raw.Control(s.ask.fn); err != nil {
		return err
	}
	switch {
	case s.ask.err != nil:
		return s.ask.err
	case s.ask.errno != 0:
		return syscall.Errno(s.ask.errno)
	}
	return nil
}

// shareAddr lets sockets for several destinations send from one port.
func shareAddr(raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
}
