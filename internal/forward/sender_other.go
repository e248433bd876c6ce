//go:build !linux

package forward

import (
	"net"
	"syscall"
)

// sender sends datagrams one by one.
type sender struct{ conn *net.UDPConn }

func newSender(conn *net.UDPConn) (sender, error) { return sender{conn}, nil }

func (s sender) write(msgs [][]byte) (int, error) {
	if _, err := s.conn.Write(msgs[0]); err != nil {
		return 0, err
	}
	return 1, nil
}

// pending knows nothing here: errors come with the next datagram.
func (s sender) pending() error { return nil }

// shareAddr leaves a port to one socket.
func shareAddr(syscall.RawConn) error { return nil }
