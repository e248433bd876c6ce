package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Allow says which hosts an event may name. The zero value allows none.
//
// An address is allowed by an address or network, a name by a name or pattern.
// Names are not looked up for this: whoever allows a name trusts its DNS.
type Allow struct {
	all      bool
	networks []netip.Prefix
	names    map[string]bool
	suffixes []string // with their leading dot
}

// ParseAllow reads a list of what is allowed: addresses (192.0.2.1), networks
// (192.0.2.0/24), names (homer.example.com), all names below a domain
// (*.example.com), or every host there is (*).
func ParseAllow(list []string) (Allow, error) {
	a := Allow{names: make(map[string]bool)}
	for _, s := range list {
		if err := a.add(strings.TrimSpace(s)); err != nil {
			return Allow{}, fmt.Errorf("allowed host %q: %w", s, err)
		}
	}
	return a, nil
}

func (a *Allow) add(s string) error {
	if s == "*" {
		a.all = true
		return nil
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return errors.New("want a network such as 192.0.2.0/24")
		}
		if p != p.Masked() {
			return fmt.Errorf("has bits behind its prefix: %s?", p.Masked())
		}
		a.networks = append(a.networks, p)
		return nil
	}
	domain, pattern := strings.CutPrefix(s, "*.")
	host, err := parseHost(strings.TrimSuffix(strings.TrimPrefix(domain, "["), "]"))
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if pattern || addr.Zone() != "" {
			return errors.New("want an address as it is")
		}
		a.networks = append(a.networks, netip.PrefixFrom(addr, addr.BitLen()))
		return nil
	}
	if pattern {
		a.suffixes = append(a.suffixes, "."+host)
		return nil
	}
	a.names[host] = true
	return nil
}

// Allows reports whether an event may name a destination on this host, which
// is the Host of a [Destination].
func (a Allow) Allows(host string) bool {
	if a.all {
		return true
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.WithZone("")
		for _, p := range a.networks {
			if p.Contains(addr) {
				return true
			}
		}
		return false
	}
	if a.names[host] {
		return true
	}
	for _, s := range a.suffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}
