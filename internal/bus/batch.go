package bus

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A batch is what a worker holds: frames and the events in them. Its memory is
// used again, so the events are valid until reset.
type batch struct {
	frames  []jetstream.Msg
	unreads []unread
	events  []trace.Event
	bytes   int
	since   time.Time // when the first frame came

	decoder trace.FrameDecoder
	unpacks [][]byte // one for each frame, since the events point into them
}

// unread is a message that is no frame we can read.
type unread struct {
	msg jetstream.Msg
	err error
}

func (b *batch) reset() {
	clear(b.frames)
	clear(b.unreads)
	b.decoder.Reset()
	b.frames, b.unreads, b.events, b.bytes = b.frames[:0], b.unreads[:0], nil, 0
}

func (b *batch) empty() bool { return len(b.frames) == 0 && len(b.unreads) == 0 }

// add takes msg into the batch.
func (b *batch) add(msg jetstream.Msg) {
	if b.empty() {
		b.since = time.Now()
	}
	packets, err := b.unpack(msg)
	unfolded := b.decoder.Unfolded()
	if err == nil {
		b.events, err = b.decoder.Append(packets)
	}
	b.bytes += b.decoder.Unfolded() - unfolded
	if err != nil {
		b.unreads = append(b.unreads, unread{msg, err})
		return
	}
	b.frames = append(b.frames, msg)
	b.bytes += len(packets)
}

func (b *batch) unpack(msg jetstream.Msg) (packets []byte, err error) {
	i := len(b.frames)
	if i == len(b.unpacks) {
		b.unpacks = append(b.unpacks, nil)
	}
	packets, b.unpacks[i], err = unpack(msg.Headers(), msg.Data(), b.unpacks[i])
	return packets, err
}

// averages returns how many events and bytes a frame of the batch holds, at
// least 1 each. There is a frame.
func (b *batch) averages() (events, bytes float64) {
	n := float64(len(b.frames))
	return max(1, float64(len(b.events))/n), max(1, float64(b.bytes)/n)
}

// all returns every message, frames first.
func (b *batch) all() []jetstream.Msg {
	msgs := make([]jetstream.Msg, 0, len(b.frames)+len(b.unreads))
	msgs = append(msgs, b.frames...)
	for _, u := range b.unreads {
		msgs = append(msgs, u.msg)
	}
	return msgs
}
