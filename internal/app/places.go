package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
)

// A place is where packets arrive.
type place struct {
	network string // "udp", "tcp"
	addr    netip.AddrPort
}

// A way is from where to where copies go over UDP.
type way struct {
	from netip.Addr
	to   netip.AddrPort
}

// places are what the nodes of a fleet tell of their sockets.
type places struct {
	taps  map[place]string // who listens there
	sends map[way]bool
}

// placesOf gathers what nodes tell, as it looks from a host that has the
// addresses local: what another host calls 127.0.0.1, or by any other address
// that this host has as well, is somewhere else.
func placesOf(nodes []bus.NodeStatus, host string, local map[netip.Addr]bool) *places {
	p := &places{taps: make(map[place]string), sends: make(map[way]bool)}
	for _, node := range nodes {
		elsewhere := func(a netip.Addr) bool {
			return node.Host != host && (a.IsLoopback() || local[a])
		}
		for _, text := range node.Listens {
			if at, ok := parsePlace(text); ok && !elsewhere(at.addr.Addr()) {
				p.taps[at] = fmt.Sprintf("%s %q", node.Service, node.Name)
			}
		}
		for _, text := range node.Sends {
			if w, ok := parseWay(text); ok && !elsewhere(w.from) && (node.Host == host || !w.to.Addr().IsLoopback()) {
				p.sends[w] = true
			}
		}
	}
	return p
}

// String is what parsePlace reads.
func (p place) String() string { return p.network + ":" + p.addr.String() }

// parsePlace reads udp:192.0.2.1:9060.
func parsePlace(s string) (place, bool) {
	network, rest, ok := strings.Cut(s, ":")
	addr, err := netip.ParseAddrPort(rest)
	if !ok || err != nil {
		return place{}, false
	}
	return place{network, bare(addr)}, true
}

// String is what parseWay reads.
func (w way) String() string { return "udp:" + w.from.String() + ">" + w.to.String() }

// parseWay reads udp:192.0.2.9>192.0.2.5:5888.
func parseWay(s string) (way, bool) {
	s, udp := strings.CutPrefix(s, "udp:")
	first, second, ok := strings.Cut(s, ">")
	from, err1 := netip.ParseAddr(first)
	to, err2 := netip.ParseAddrPort(second)
	if !udp || !ok || err1 != nil || err2 != nil {
		return way{}, false
	}
	return way{from.Unmap().WithZone(""), bare(to)}, true
}

// bare is an address as captured packets have it.
func bare(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// localAddrs are the addresses that this machine has now.
func localAddrs() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	all := make(map[netip.Addr]bool)
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return all, nil
}

// listens are the places at which sockets can be reached: of one that listens
// on every address, all that the machine has now.
func listens(sockets []net.Addr) []string {
	var all []string
	for _, s := range sockets {
		at, ok := parsePlace(s.Network() + ":" + s.String())
		if !ok {
			continue
		}
		if !at.addr.Addr().IsUnspecified() {
			all = append(all, at.String())
			continue
		}
		addrs, _ := localAddrs() // whoever asks the others says why not
		for a := range addrs {
			all = append(all, place{at.network, netip.AddrPortFrom(a, at.addr.Port())}.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sends are the ways on which plain SIP goes to destinations. It looks up
// names, and asks the system from which address it would send; nothing is sent.
func sends(ctx context.Context, destinations []forward.Destination) []string {
	var all []string
	for _, d := range destinations {
		if d.Scheme != forward.SIPUDP {
			continue
		}
		for _, to := range reach(ctx, d.Host) {
			w := way{d.From.Addr().Unmap(), netip.AddrPortFrom(to, d.Port)}
			if !w.from.IsValid() {
				var ok bool
				if w.from, ok = sourceFor(ctx, w.to); !ok {
					continue
				}
			}
			all = append(all, w.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// reach are the addresses that a host stands for.
func reach(ctx context.Context, host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap().WithZone("")}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // the forwarder itself complains of it
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap().WithZone("")
	}
	return addrs
}

// sourceFor is the address from which the system would send.
func sourceFor(ctx context.Context, to netip.AddrPort) (netip.Addr, bool) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", to.String())
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return from.Addr().Unmap().WithZone(""), err == nil
}
