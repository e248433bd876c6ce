package ctl

import (
	"context"
	"slices"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A selection is a sink that counts events and hands on those that are wanted.
// A nil out only counts.
type selection struct {
	query  trace.Query
	tail   TailCmd            // its filter is ours
	table  string             // where every event goes; empty is where it says itself
	kept   trace.Flags        // flags with which a rule keeps an event from the target
	routed bool               // so does a destination of its own
	all    bool               // send it all the same
	sorted bool               // each batch by capture time, as far as it goes
	census *census            // of what is selected
	out    trace.Sink         // nil only counts
	told   func(selected int) // of each batch, once it is written

	read, leftOut int
	batch         []trace.Event
	msg           sipmsg.Message
}

// respectRules leaves out what a rule keeps from such a target: what db-writer
// would not store, or hep-forwarder not send there.
func (s *selection) respectRules(kind targetKind) {
	switch kind {
	case toStore:
		s.kept = trace.NoStore
	case toCollector:
		s.kept, s.routed = trace.NoDuplicate, true
	}
}

// Write is what [trace.Sink] promises.
func (s *selection) Write(ctx context.Context, events []trace.Event) error {
	s.batch = s.batch[:0]
	leftOut := 0
	for i := range events {
		e := &events[i]
		s.scan(e)
		if !s.inTime(e.Time) || !s.tail.wanted(&s.query, e, &s.msg) {
			continue
		}
		if s.keptBack(e) && !s.all {
			leftOut++
			continue
		}
		s.batch = append(s.batch, *e)
		own := &s.batch[len(s.batch)-1]
		own.Flags &^= s.kept
		if s.table != "" {
			own.Table = s.table
		}
	}
	if s.sorted {
		slices.SortStableFunc(s.batch, func(a, b trace.Event) int { return a.Time.Compare(b.Time) })
	}
	if s.out != nil && len(s.batch) > 0 {
		if err := s.out.Write(ctx, s.batch); err != nil {
			return err
		}
	}
	s.read += len(events)
	s.leftOut += leftOut
	s.count()
	clear(s.batch)
	return nil
}

// count counts the batch, which is done with.
func (s *selection) count() {
	for i := range s.batch {
		s.scan(&s.batch[i])
		s.census.add(&s.batch[i], &s.msg)
	}
	if s.told != nil {
		s.told(len(s.batch))
	}
}

func (s *selection) scan(e *trace.Event) {
	s.msg = sipmsg.Message{}
	if e.Type == trace.TypeSIP {
		sipmsg.Scan(&s.msg, e.Payload)
	}
}

func (s *selection) inTime(t time.Time) bool {
	return !t.Before(s.query.From) && (s.query.To.IsZero() || t.Before(s.query.To))
}

// keptBack reports whether a rule keeps e from the target.
func (s *selection) keptBack(e *trace.Event) bool {
	return e.Flags&s.kept != 0 || s.routed && len(e.Destinations) > 0
}
