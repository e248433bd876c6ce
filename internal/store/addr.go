package store

import (
	"bytes"
	"net/netip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const anyTransport = "any" // what Kamailio writes for a transport it does not know

// appendAddr appends an address as the columns fromip and toip have it,
// "udp:192.0.2.1:5060" or "tls:[2001:db8::1]:5061"; nothing for no address.
func appendAddr(dst []byte, t trace.Transport, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	name := t.String()
	if name == "" {
		name = anyTransport
	}
	dst = append(dst, name...)
	dst = append(dst, ':')
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).AppendTo(dst)
}

// parseAddr reads what appendAddr writes, and IPv6 without brackets as
// Kamailio writes it on some paths: there the last colon precedes the port.
func parseAddr(text []byte) (trace.Transport, netip.AddrPort) {
	name, rest, ok := bytes.Cut(text, []byte{':'})
	if !ok {
		return trace.TransportUnknown, netip.AddrPort{}
	}
	t, _ := trace.ParseTransport(string(name))
	s := string(rest)
	if a, err := netip.ParseAddrPort(s); err == nil {
		return t, a
	}
	last := bytes.LastIndexByte(rest, ':')
	if last < 0 {
		return t, netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort("[" + s[:last] + "]" + s[last:])
	if err != nil {
		return t, netip.AddrPort{}
	}
	return t, a
}
