package listen

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// maxRepeats is how often the same message may come within repeatTime.
	// SIP itself sends none more than eleven times (RFC 3261, timers E and G).
	maxRepeats = 64
	repeatTime = 64 // seconds

	// So many messages are remembered. A shelf holds several, so that two
	// that have one shelf do not push each other out on every round.
	repeatShelves = 1 << 12
	repeatShelf   = 8
)

// repeats finds messages that go round in circles. A message that carries its
// time of capture is known again by its [trace.ID]; this is for those that
// carry none: HEP version 1, plain SIP without X-Siptrace headers. They are
// given the time of their coming, so each round would make a new event of them.
//
// It remembers the latest 32,768 messages. The zero value is ready and has no
// memory yet. It is for several goroutines.
type repeats struct {
	mu      sync.Mutex
	shelves [][repeatShelf]repeat
}

type repeat struct {
	key   uint64
	since int64 // seconds
	n     uint32
}

// tooMany notes e, whose time is that of its coming, and reports whether the
// same message has come too often.
func (r *repeats) tooMany(e *trace.Event) bool {
	twin := *e
	twin.Time = time.Unix(0, 0)
	twin.Identify()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shelves == nil {
		r.shelves = make([][repeatShelf]repeat, repeatShelves)
	}
	key := binary.BigEndian.Uint64(twin.ID[8:])
	now := e.Time.Unix()
	shelf := &r.shelves[key%repeatShelves]
	at := 0
	for i := range shelf {
		if shelf[i].key == key && now-shelf[i].since < repeatTime && now >= shelf[i].since {
			shelf[i].n++
			return shelf[i].n > maxRepeats
		}
		if shelf[i].since < shelf[at].since {
			at = i // the oldest gives way
		}
	}
	shelf[at] = repeat{key: key, since: now, n: 1}
	return false
}
