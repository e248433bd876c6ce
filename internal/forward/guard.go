package forward

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Guard keeps what is sent from coming back. It is asked for every batch, by
// several goroutines, and must not wait.
type Guard interface {
	// Origin names this fleet in every HEP version 3 packet that is sent, in
	// a chunk [trace.ChunkOrigin] behind all others: a tap of the fleet that
	// gets such a packet knows that it has been here. Events that carry it
	// already are not sent. Empty is not known. Nobody changes the bytes.
	Origin() []byte

	// Refuse says why nothing that is not marked so is to be sent to an
	// address, because a tap of this fleet listens there; or nil. The network
	// is "udp" or "tcp".
	Refuse(network string, to netip.AddrPort) error
}

// A loopError is why nothing is sent to a destination.
type loopError struct{ err error }

func (e *loopError) Error() string { return "nothing is sent: " + e.err.Error() }

func (e *loopError) Unwrap() error { return e.err }

// isLoop reports whether a destination leads back to where events come from.
func isLoop(err error) bool {
	if err == nil {
		return false // which costs nothing
	}
	var loop *loopError
	return errors.As(err, &loop)
}

// refused asks the guard, if there is one, about the address that d leads to.
// What is marked needs no such question: addresses may mislead, for behind
// translation one place has several, and several have one.
func (d *Destination) refused(g Guard, to netip.AddrPort) error {
	if g == nil || d.Taps || d.Version == 3 && !d.NoMark && len(g.Origin()) > 0 {
		return nil
	}
	network := d.Scheme.network()
	if err := g.Refuse(network, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())); err != nil {
		return &loopError{fmt.Errorf("%s:%s: %w", network, to, err)}
	}
	return nil
}

// hasBeen reports whether an event says that it has been in the fleet's stream
// on an earlier round.
func hasBeen(g Guard, e *trace.Event) bool {
	if g == nil || len(e.Chunks) == 0 {
		return false
	}
	origin := g.Origin()
	for c, err := range hep.Walk(e.Chunks) {
		if err == nil && c.Vendor == trace.Vendor && c.Type == trace.ChunkOrigin && string(c.Body) == string(origin) {
			return true
		}
	}
	return false
}

// mark appends the fleet's chunk to the packet that begins at start, if there
// is room for it.
func mark(packet []byte, start int, origin []byte) []byte {
	if len(origin) == 0 {
		return packet
	}
	marked := hep.AppendChunk(packet, trace.Vendor, trace.ChunkOrigin, origin)
	if hep.PatchLength(marked[start:]) != nil {
		return packet
	}
	return marked
}
