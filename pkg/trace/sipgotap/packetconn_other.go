//go:build !unix

package sipgotap

import (
	"net"
	"net/netip"
)

// reader reads datagrams. This system tells neither to whom they came nor
// whether they were cut.
type reader struct{ conn *net.UDPConn }

func newReader(c *net.UDPConn, _ bool) *reader { return &reader{c} }

func (r *reader) read(b []byte) (n int, from net.Addr, to netip.Addr, cut bool, err error) {
	n, from, err = r.conn.ReadFrom(b)
	return n, from, to, false, err
}
