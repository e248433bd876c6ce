package listen

import (
	"crypto/subtle"
	"errors"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// intake turns HEP packets into a batch of events. It does not allocate for
// ordinary packets. It is for one goroutine.
type intake struct {
	batch
	auth    []byte // the key a packet must bring; empty is none
	guard   *Guard // nil lets everything in
	repeats *repeats
	marks   marks

	dec    hep.Decoder
	large  bool // dec has inflated what it should not keep the room for
	packet hep.Packet
	names  trace.Names
}

// newIntake makes an intake. It sets the chunks aside in which siptrace tells
// itself on the bus what to do with an event: strangers are not to tell it.
func newIntake(count *counters, auth string, guard *Guard, m *marking) *intake {
	return &intake{
		batch:   newBatch(count),
		auth:    []byte(auth),
		guard:   guard,
		repeats: new(repeats),
		marks:   marks{marking: m},
		dec:     newDecoder(),
	}
}

func newDecoder() hep.Decoder { return hep.Decoder{Lenient: true, Private: hep.VendorSiptrace} }

// shrink lets go of the room for inflated payloads if it is large: each
// connection has a decoder, and may be silent for hours. The batch is empty.
func (in *intake) shrink() {
	if in.large {
		in.dec, in.packet, in.large = newDecoder(), hep.Packet{}, false
		clear(in.events[:cap(in.events)]) // they hold payloads still
	}
}

// add decodes b and adds its event to the batch, or says why there is none.
// The event aliases b. Its time is zero if the packet has none.
func (in *intake) add(b []byte) (*trace.Event, drop, error) {
	p := &in.packet
	err := in.dec.Decode(p, b)
	in.large = in.large || p.CompressedPayload != nil && len(p.Payload) > fullScratch || errors.Is(err, hep.ErrInflate)
	if err != nil {
		return nil, dropOf(err, len(b)), err
	}
	switch {
	case len(in.auth) > 0 && subtle.ConstantTimeCompare(p.AuthKey, in.auth) != 1:
		return nil, dropAuth, nil
	case len(p.Payload) == 0 && p.Quirks&hep.QuirkTruncated != 0:
		return nil, dropTruncated, hep.ErrTruncated
	case len(p.Payload) == 0:
		return nil, dropNoPayload, nil
	}
	if len(p.Private) > 0 && in.guard.meets(p.Private) {
		return nil, dropLoop, nil
	}
	if p.CompressedPayload != nil {
		p.Payload = in.keep(p.Payload)
	}
	p.Extra = in.keepChunks(p.Extra, p.Private)

	if len(in.events) == 0 {
		in.marks.reset() // the sink has what was in it
	}
	e := in.next()
	trace.FromHEP(e, p, &in.names)
	if len(p.Private) > 0 {
		in.marks.read(e, p.Private)
	}
	return e, 0, nil
}

// keepChunks keeps the chunks of others, and which fleets the event has been in.
func (in *intake) keepChunks(extra, private []byte) []byte {
	at := len(in.scratch)
	in.scratch = append(in.scratch, extra...)
	if len(private) > 0 {
		in.scratch = appendOrigins(in.scratch, private)
	}
	return in.since(at)
}

// stamp gives the event that was added last the time of its coming. It takes
// the event back and reports false when the same message has come too often.
func (in *intake) stamp(e *trace.Event, at time.Time) bool {
	e.Time = at
	if in.guard == nil || !in.repeats.tooMany(e) {
		return true
	}
	in.undo()
	return false
}
