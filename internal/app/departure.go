package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// departure is the sink behind a tap's intake, the last station before the
// bus. An event for which no rule names a table gets the tap's. What comes back
// stays here, and is counted.
//
// The events it is given are the intake's own, and it changes them.
type departure struct {
	table string
	loops *comebacks // nil for sources that nobody sends to
	out   trace.Sink
}

// Write hands on the events that have not been here.
func (d *departure) Write(ctx context.Context, events []trace.Event) error {
	if d.loops != nil {
		events = d.loops.without(events, time.Now())
		if len(events) == 0 {
			return nil
		}
	}
	if d.table != "" {
		for i := range events {
			if events[i].Table == "" {
				events[i].Table = d.table
			}
		}
	}
	return d.out.Write(ctx, events)
}

// comebacks finds the events that come back to a tap: those that it has handed
// on before, which their [trace.ID] tells, and those that are copies which a
// forwarder of the fleet has sent, which their addresses tell.
//
// It remembers the latest 65,536 events, for as long as the stream itself knows
// a frame again. It is for the one intake that writes to it.
type comebacks struct {
	copies  func(e *trace.Event) bool
	shelves []shelf // by a digest of the ID

	again, copied prometheus.Counter
}

// departed says when an event was handed on.
type departed struct {
	id trace.ID
	at int64 // seconds
}

const (
	shelves      = 1 << 13
	shelfSize    = 8
	departedTime = 120 // seconds: the stream's duplicate window
)

// A shelf holds several events, so that two that have one shelf do not push
// each other out on every round. It is a ring.
type shelf struct {
	events [shelfSize]departed
	next   uint8
}

func newComebacks(n *neighbours, reg prometheus.Registerer, source string) (*comebacks, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name:        "siptrace_tap_events_back_total",
		Help:        "Events left out because they had been here: known again, or copies that a forwarder of this fleet has sent.",
		ConstLabels: prometheus.Labels{"source": source},
	}, []string{"reason"})
	if err := reg.Register(vec); err != nil {
		return nil, err
	}
	return &comebacks{
		shelves: make([]shelf, shelves),
		copies:  func(e *trace.Event) bool { return e.Transport == trace.UDP && n.copies(e.Src.Addr(), e.Dst) },
		again:   vec.WithLabelValues("seen before"),
		copied:  vec.WithLabelValues("own copy"),
	}, nil
}

// without are the events that have not been here; they move together in their
// slice.
func (c *comebacks) without(events []trace.Event, now time.Time) []trace.Event {
	kept, again, copied := 0, 0, 0
	for i := range events {
		e := &events[i]
		switch {
		case c.copies(e):
			copied++
			continue
		case c.seen(e.ID, now.Unix()):
			again++
			continue
		}
		if kept != i {
			events[kept] = *e
		}
		kept++
	}
	if again > 0 {
		c.again.Add(float64(again))
	}
	if copied > 0 {
		c.copied.Add(float64(copied))
	}
	return events[:kept]
}

// seen reports whether an event was handed on a while ago, and notes that it is now.
func (c *comebacks) seen(id trace.ID, now int64) bool {
	s := &c.shelves[(uint(id[14])<<8|uint(id[15]))%shelves]
	for i := range s.events {
		if s.events[i].id == id && now-s.events[i].at < departedTime {
			return true
		}
	}
	s.events[s.next] = departed{id, now}
	s.next = (s.next + 1) % shelfSize
	return false
}
