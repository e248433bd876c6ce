package listen

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// maxFleets is how many fleets an event may have been in.
const maxFleets = 16

// A Guard keeps what a fleet has sent itself from coming back to its taps.
// Several listeners may share one, and it may be told more while they run. A
// nil Guard lets everything in.
type Guard struct {
	ignore []netip.Prefix
	fleet  atomic.Pointer[string]
}

// NewGuard makes a guard that lets nothing in from the senders to ignore.
func NewGuard(ignore []netip.Prefix) *Guard {
	return &Guard{ignore: slices.Clone(ignore)}
}

// SetFleet says which fleet this is: HEP packets that carry its
// [trace.ChunkOrigin] are a loop and are not let in.
func (g *Guard) SetFleet(id string) { g.fleet.Store(&id) }

// ignores reports whether a sender is to be ignored.
func (g *Guard) ignores(from netip.Addr) bool {
	if g == nil {
		return false
	}
	for _, p := range g.ignore {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// watches reports whether the senders of packets matter at all.
func (g *Guard) watches() bool { return g != nil && len(g.ignore) > 0 }

// meets reports whether siptrace's chunks in a packet say that the event has
// been here, or in more fleets than anybody has.
func (g *Guard) meets(chunks []byte) bool {
	if g == nil {
		return false
	}
	own, fleets := g.fleet.Load(), 0
	for c, err := range hep.Walk(chunks) {
		if err != nil || c.Type != trace.ChunkOrigin {
			continue
		}
		if fleets++; fleets > maxFleets || own != nil && string(c.Body) == *own {
			return true
		}
	}
	return false
}

// appendOrigins appends those of siptrace's chunks that say where an event has
// been. They are the only ones that go on as they are.
func appendOrigins(dst, chunks []byte) []byte {
	for c, err := range hep.Walk(chunks) {
		if err == nil && c.Type == trace.ChunkOrigin && len(c.Body) <= maxFleetID {
			dst = hep.AppendChunk(dst, c.Vendor, c.Type, c.Body)
		}
	}
	return dst
}

// maxFleetID is the longest name of a fleet that is carried on.
const maxFleetID = 64
