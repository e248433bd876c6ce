//go:build unix

package sipgotap

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// reader reads datagrams, and with them to whom they came and whether they
// were cut.
type reader struct {
	conn        *net.UDPConn
	destination func(control []byte) netip.Addr // nil where that is known or cannot be told
	control     *controls
}

// newReader returns a reader of c. On a wildcard bind it has the kernel say to
// which address a datagram came.
func newReader(c *net.UDPConn, wildcard bool) *reader {
	r := &reader{conn: c, control: newControls()}
	if !wildcard {
		return r
	}
	if addrPortRaw(c).Is4() {
		if ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true) == nil {
			r.destination = destination4
		}
		return r
	}
	if ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true) == nil {
		r.destination = destination6
	}
	return r
}

// addrPortRaw is the address that c is bound to, in the family of its socket.
func addrPortRaw(c *net.UDPConn) netip.Addr {
	local, _ := c.LocalAddr().(*net.UDPAddr)
	if local == nil {
		return netip.Addr{}
	}
	return local.AddrPort().Addr()
}

func (r *reader) read(b []byte) (n int, from net.Addr, to netip.Addr, cut bool, err error) {
	var control []byte
	if r.destination != nil {
		room := r.control.get()
		defer r.control.put(room)
		control = room[:]
	}
	n, told, flags, sender, err := r.conn.ReadMsgUDPAddrPort(b, control)
	if err != nil {
		return n, nil, to, false, err
	}
	if r.destination != nil {
		to = r.destination(control[:told])
	}
	sender = netip.AddrPortFrom(sender.Addr().Unmap(), sender.Port())
	return n, net.UDPAddrFromAddrPort(sender), to, flags&syscall.MSG_TRUNC != 0, nil
}

func destination4(control []byte) netip.Addr {
	var m ipv4.ControlMessage
	if m.Parse(control) != nil {
		return netip.Addr{}
	}
	return ipOf(m.Dst)
}

func destination6(control []byte) netip.Addr {
	var m ipv6.ControlMessage
	if m.Parse(control) != nil {
		return netip.Addr{}
	}
	return ipOf(m.Dst)
}

// ipOf is an address of which the zero Addr is none.
func ipOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
