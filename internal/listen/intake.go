package listen

import (
	"context"
	"crypto/subtle"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// maxScratch is how much an intake keeps of its scratch from batch to batch.
	maxScratch = 256 << 10

	// fullScratch is how much of it makes a batch full.
	fullScratch = 64 << 10
)

// intake turns HEP packets into a batch of events. It does not allocate for
// ordinary packets. It is for one goroutine.
type intake struct {
	count *counters
	auth  []byte // the key a packet must bring; empty is none

	dec    hep.Decoder
	packet hep.Packet
	names  trace.Names

	// events is the batch. Its slices alias the packets or scratch, which
	// holds what the decoder would overwrite with the next packet.
	events  []trace.Event
	scratch []byte
}

// newIntake makes an intake. It sets the chunks aside in which siptrace tells
// itself on the bus what to do with an event: strangers are not to tell it.
func newIntake(count *counters, auth string) *intake {
	return &intake{
		count:  count,
		auth:   []byte(auth),
		dec:    hep.Decoder{Lenient: true, Private: hep.VendorSiptrace},
		events: make([]trace.Event, 0, batchSize),
	}
}

// add decodes b and adds its event to the batch, or says why there is none.
// The event aliases b. Its time is zero if the packet has none.
func (in *intake) add(b []byte) (*trace.Event, drop, error) {
	p := &in.packet
	if err := in.dec.Decode(p, b); err != nil {
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
	if p.CompressedPayload != nil {
		p.Payload = in.keep(p.Payload)
	}
	p.Extra = in.keep(p.Extra)

	in.events = in.events[:len(in.events)+1]
	e := &in.events[len(in.events)-1]
	trace.FromHEP(e, p, &in.names)
	return e, 0, nil
}

// keep copies to scratch what may be the decoder's own.
func (in *intake) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	at := len(in.scratch)
	in.scratch = append(in.scratch, b...)
	return in.scratch[at:len(in.scratch):len(in.scratch)]
}

// full reports whether the batch should take no more.
func (in *intake) full() bool {
	return len(in.events) == cap(in.events) || len(in.scratch) >= fullScratch
}

// handOn gives the batch, unless it is empty, to the sink and begins the next.
func (in *intake) handOn(ctx context.Context, sink trace.Sink) error {
	var err error
	if n := len(in.events); n > 0 {
		if err = sink.Write(ctx, in.events); err == nil {
			in.count.events.Add(float64(n))
		}
	}
	in.events = in.events[:0]
	in.scratch = in.scratch[:0]
	if cap(in.scratch) > maxScratch {
		in.scratch = nil
	}
	return err
}
