package listen

import (
	"encoding/binary"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// maxRepeats is how often the same message may come within repeatTime.
	// SIP itself sends none more than eleven times (RFC 3261, timers E and G).
	maxRepeats = 64
	repeatTime = 64 // seconds

	// repeatSlots is how many messages are remembered.
	repeatSlots = 1 << 15
)

// repeats finds messages that go round in circles. A message that carries its
// time of capture is known again by its [trace.ID]; this is for those that
// carry none: HEP version 1, plain SIP without X-Siptrace headers. They are
// given the time of their coming, so each round would make a new event of them.
//
// It remembers so many messages, each in the one place that its digest gives
// it. The zero value is ready and has no memory yet.
type repeats struct{ slots []repeat }

type repeat struct {
	key   uint64
	since int64 // seconds
	n     uint32
}

// tooMany notes e, whose time is that of its coming, and reports whether the
// same message has come too often.
func (r *repeats) tooMany(e *trace.Event) bool {
	if r.slots == nil {
		r.slots = make([]repeat, repeatSlots)
	}
	twin := *e
	twin.Time = time.Unix(0, 0)
	twin.Identify()
	key := binary.BigEndian.Uint64(twin.ID[8:])
	now := e.Time.Unix()
	s := &r.slots[key%repeatSlots]
	if s.key != key || now-s.since >= repeatTime || now < s.since {
		*s = repeat{key: key, since: now}
	}
	s.n++
	return s.n > maxRepeats
}
