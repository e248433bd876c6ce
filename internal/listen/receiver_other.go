//go:build !linux

package listen

import (
	"net"
	"net/netip"
	"time"
)

// receiver reads one datagram at a time. Linux has a better one.
type receiver struct {
	conn   *net.UDPConn
	buf    []byte
	n      int
	sender netip.AddrPort
}

func newReceiver(conn *net.UDPConn) (*receiver, error) {
	return &receiver{conn: conn, buf: make([]byte, datagramSize)}, nil
}

// receive waits for a datagram. It holds until the next call.
func (r *receiver) receive() (int, error) {
	n, from, err := r.conn.ReadFromUDPAddrPort(r.buf)
	if err != nil {
		return 0, err
	}
	r.n, r.sender = n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

// poll finds nothing here: the socket waits or is silent.
func (r *receiver) poll() int { return 0 }

// datagram is the datagram of the last read.
func (r *receiver) datagram(int) (b []byte, cut bool) { return r.buf[:r.n], false }

// from is who sent it.
func (r *receiver) from(int) netip.AddrPort { return r.sender }

// at is when it came.
func (r *receiver) at(int) time.Time { return time.Now() }

// lost is 0: this system does not tell what it drops.
func (r *receiver) lost() uint64 { return 0 }

// growRcvBuf asks for size bytes. What there is now this system does not tell.
func growRcvBuf(conn *net.UDPConn, size int) (got int, err error) {
	return size, conn.SetReadBuffer(size)
}

// isPassing reports whether the socket is good though a read gave err.
func isPassing(error) bool { return false }
