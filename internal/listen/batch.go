package listen

import (
	"context"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// maxScratch is how much a batch keeps of its scratch for the next.
	maxScratch = 256 << 10

	// fullScratch is how much of it makes a batch full.
	fullScratch = 64 << 10
)

// batch is the events that go to the sink together. Their slices alias what
// was received or scratch, which holds what the next packet would overwrite.
type batch struct {
	count   *counters
	events  []trace.Event
	scratch []byte
}

func newBatch(count *counters) batch {
	return batch{count: count, events: make([]trace.Event, 0, batchSize)}
}

// next is one more event, to be filled in.
func (b *batch) next() *trace.Event {
	b.events = b.events[:len(b.events)+1]
	return &b.events[len(b.events)-1]
}

// undo takes the last event back.
func (b *batch) undo() { b.events = b.events[:len(b.events)-1] }

// keep copies a piece to scratch.
func (b *batch) keep(piece []byte) []byte {
	at := len(b.scratch)
	b.scratch = append(b.scratch, piece...)
	return b.since(at)
}

// since is what scratch holds from at on; nil is nothing.
func (b *batch) since(at int) []byte {
	if len(b.scratch) == at {
		return nil
	}
	return b.scratch[at:len(b.scratch):len(b.scratch)]
}

// full reports whether the batch should take no more.
func (b *batch) full() bool {
	return len(b.events) == cap(b.events) || len(b.scratch) >= fullScratch
}

// handOn gives the batch, unless it is empty, to the sink and begins the next.
func (b *batch) handOn(ctx context.Context, sink trace.Sink) error {
	var err error
	if n := len(b.events); n > 0 {
		if err = sink.Write(ctx, b.events); err == nil {
			b.count.events.Add(float64(n))
		}
	}
	b.events = b.events[:0]
	b.scratch = b.scratch[:0]
	if cap(b.scratch) > maxScratch {
		b.scratch = nil
	}
	return err
}
