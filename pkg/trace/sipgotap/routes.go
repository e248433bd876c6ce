package sipgotap

import (
	"net"
	"net/netip"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	routeLife = 10 * time.Second
	maxRoutes = 4096
)

// routes tell from which address of this machine a packet to somebody goes,
// which is the address that a socket on a wildcard bind sends from. It is for
// one goroutine.
type routes struct{ known map[netip.Addr]route }

type route struct {
	local netip.Addr
	until time.Time
}

func newRoutes() routes { return routes{known: make(map[netip.Addr]route)} }

// complete fills in the addresses of an event that only the routing table knows.
func (r *routes) complete(e *trace.Event) {
	if e.Src.Addr().IsUnspecified() {
		e.Src = r.from(e.Src, e.Dst)
	}
	if e.Dst.Addr().IsUnspecified() {
		e.Dst = r.from(e.Dst, e.Src)
	}
}

// from is the address of a socket bound to the wildcard local that speaks with
// remote. Where there is no way to remote it stays as it is.
func (r *routes) from(local, remote netip.AddrPort) netip.AddrPort {
	known, ok := r.known[remote.Addr()]
	if !ok || time.Now().After(known.until) {
		if len(r.known) >= maxRoutes {
			clear(r.known)
		}
		known = route{local: lookUp(remote.Addr()), until: time.Now().Add(routeLife)}
		r.known[remote.Addr()] = known
	}
	if !known.local.IsValid() {
		return local
	}
	return netip.AddrPortFrom(known.local, local.Port())
}

// lookUp asks the kernel, which sends nothing for it.
func lookUp(remote netip.Addr) netip.Addr {
	const discard = 9 // any port would do
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, discard)))
	if err != nil {
		return netip.Addr{}
	}
	defer func() { _ = c.Close() }()
	return addrPort(c.LocalAddr()).Addr()
}
