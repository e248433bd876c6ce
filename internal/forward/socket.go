package forward

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// socket is a UDP socket that sends to one address, and hears what the network
// says of it.
type socket struct {
	conn *net.UDPConn
	to   netip.AddrPort
	out  sender
}

// dialUDP opens a socket that sends to one address, from one address if that
// is valid. Where the system allows it, several sockets may send from there.
func dialUDP(from, to netip.AddrPort) (*socket, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
		d.Control = func(_, _ string, raw syscall.RawConn) error { return shareAddr(raw) }
	}
	c, err := d.Dial("udp", to.String())
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UDPConn)
	out, err := newSender(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &socket{conn: conn, to: to, out: out}, nil
}

// write sends the first datagrams of msgs, at least one, and says how many.
// An error is about the first of them, or about one sent earlier.
func (s *socket) write(msgs [][]byte) (int, error) { return s.out.write(msgs) }

// pending returns what the network has said of datagrams sent earlier.
func (s *socket) pending() error { return s.out.pending() }

// answer waits for what the network says of the last datagram. Silence is
// good, and so is any datagram that comes back.
func (s *socket) answer(d time.Duration) error {
	if err := s.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	_, err := s.conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// close closes the socket; there is nothing left to fail.
func (s *socket) close() { _ = s.conn.Close() }
