package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// An endpoint is one value of src, dst or addr.
type endpoint struct {
	net  netip.Prefix // invalid is any address
	port uint16       // 0 is any port
}

func (n *endpoint) match(a netip.AddrPort) bool {
	return (n.port == 0 || n.port == a.Port()) && (!n.net.IsValid() || n.net.Contains(a.Addr()))
}

var errEndpoint = errors.New("is none of 10.0.0.1, 10.0.0.1:5060, 10.0.0.0/8, 10.0.0.0/8:5060, :5060, 2001:db8::1, [2001:db8::1]:5060; names are not looked up")

// parseEndpoint reads an address, a network, a port, or both.
func parseEndpoint(s string) (n endpoint, not bool, err error) {
	if err := printable(s, maxText); err != nil {
		return n, false, err
	}
	s, not = strings.CutPrefix(s, "!")
	host, port := s, ""
	switch inner, bracket := strings.CutPrefix(s, "["); {
	case bracket:
		end := strings.IndexByte(inner, ']')
		if end < 0 || !strings.Contains(inner[:end], ":") {
			return n, not, errEndpoint
		}
		host, port = inner[:end], inner[end+1:]
	case strings.Count(s, ":") == 1:
		i := strings.IndexByte(s, ':')
		host, port = s[:i], s[i:]
	}
	if port != "" {
		digits, ok := strings.CutPrefix(port, ":")
		p, err := strconv.ParseUint(digits, 10, 16)
		if !ok || err != nil || p == 0 {
			return n, not, errEndpoint
		}
		n.port = uint16(p)
	}
	if host != "" {
		n.net, err = parseNetwork(host)
	} else if port == "" {
		err = errEndpoint
	}
	return n, not, err
}

func parseNetwork(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errEndpoint
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, errEndpoint
	case p.Addr().Is4In6():
		return p, errors.New("is an IPv4 network in IPv6 clothes: write it as IPv4")
	case p != p.Masked():
		return p, fmt.Errorf("has bits behind its prefix; %s?", p.Masked())
	}
	return p, nil
}

// endpoints are the values of one selector of addresses.
type endpoints struct {
	some, not []endpoint
}

func newEndpoints(field string, values []string) (*endpoints, error) {
	var n endpoints
	var errs []error
	for i, v := range values {
		one, not, err := parseEndpoint(v)
		switch {
		case err != nil:
			errs = append(errs, fieldError(field, i, v, err))
		case not:
			n.not = append(n.not, one)
		default:
			n.some = append(n.some, one)
		}
	}
	errs = append(errs, checkCount(field, len(values), maxValues)...)
	return &n, errors.Join(errs...)
}

// keys are the networks of which one must hold an address for a value to match,
// or none if a value is a port alone.
func (n *endpoints) keys(forms ...form) []key {
	var out []key
	for _, one := range n.some {
		if !one.net.IsValid() {
			return nil
		}
		for _, f := range forms {
			out = append(out, key{form: f, net: one.net})
		}
	}
	return out
}

// match reports whether a is one of the values and none of the negated ones.
func (n *endpoints) match(a netip.AddrPort) bool {
	return !has(n.not, a) && (len(n.some) == 0 || has(n.some, a))
}

// match2 is match for either of two sides.
func (n *endpoints) match2(a, b netip.AddrPort) bool {
	return !has(n.not, a) && !has(n.not, b) && (len(n.some) == 0 || has(n.some, a) || has(n.some, b))
}

func has(list []endpoint, a netip.AddrPort) bool {
	for i := range list {
		if list[i].match(a) {
			return true
		}
	}
	return false
}
