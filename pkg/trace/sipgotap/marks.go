package sipgotap

import (
	"container/list"
	"slices"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Scope says how far a mark reaches.
type Scope uint8

// The scopes of a mark.
const (
	Message     Scope = iota // this message and its retransmissions
	Transaction              // request, responses, ACK and CANCEL, on both sides of a proxy: one Call-ID, From tag and CSeq number
	Dialog                   // every message of the Call-ID
)

// A Mark is what the events of a message, transaction or dialog carry. The zero
// Mark says only that the message is to be traced, which is what counts where
// Options.Selective is set.
type Mark struct {
	Scope         Scope
	Users         []string      // traced users: a row each, besides the one without user
	Table         string        // database table
	Destinations  []string      // URIs that get a duplicate
	CorrelationID string        // HEP correlation id
	Flags         trace.Flags   // UsersOnly, NoStore, NoDuplicate
	For           time.Duration // how long it is kept: 32 s, 5 min or 12 h by default, as the scope is
}

// life is how long a mark is kept.
func (m *Mark) life() time.Duration {
	switch {
	case m.For > 0:
		return m.For
	case m.Scope == Dialog:
		return 12 * time.Hour
	case m.Scope == Transaction:
		return 5 * time.Minute
	}
	return 32 * time.Second
}

// mark is a Mark that is kept. It never changes, for messages in the buffer
// point to it.
type mark struct {
	Mark
	ends time.Duration // on the clock of the tap
}

func newMark(m Mark, now time.Duration) *mark {
	m.Users, m.Destinations = slices.Clone(m.Users), slices.Clone(m.Destinations)
	return &mark{Mark: m, ends: now + m.life()}
}

// with is what the marks are together. Where both say something, m counts.
func (m *mark) with(other *mark) *mark {
	sum := *m
	sum.Users = union(m.Users, other.Users)
	sum.Destinations = union(m.Destinations, other.Destinations)
	sum.Flags |= other.Flags
	sum.ends = max(m.ends, other.ends)
	if sum.Table == "" {
		sum.Table = other.Table
	}
	if sum.CorrelationID == "" {
		sum.CorrelationID = other.CorrelationID
	}
	return &sum
}

// union is a with those of b that it lacks.
func union(a, b []string) []string {
	if len(b) == 0 {
		return a
	}
	all := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// together is all marks of a message in one, or nil. The narrowest comes first.
func together(marks *[numKeys]*mark) *mark {
	var sum *mark
	for _, m := range marks {
		switch {
		case m == nil:
		case sum == nil:
			sum = m
		default:
			sum = sum.with(m)
		}
	}
	return sum
}

// marks are the marks in force, by key.
type marks struct {
	max     int
	byKey   map[uint64]*list.Element
	order   *list.List // of keptMark, the oldest first
	evicted uint64
}

type keptMark struct {
	key  uint64
	mark *mark
}

func newMarks(most int) marks {
	return marks{max: most, byKey: make(map[uint64]*list.Element), order: list.New()}
}

func (s *marks) len() uint64 { return uint64(len(s.byKey)) }

// add keeps a mark, together with what is there under the same key, and
// returns both as one.
func (s *marks) add(key uint64, m *mark, now time.Duration) *mark {
	if old := s.find(key, now); old != nil {
		m = m.with(old)
		s.remove(s.byKey[key])
	}
	for len(s.byKey) >= s.max {
		oldest := s.order.Front()
		if oldest.Value.(keptMark).mark.ends > now {
			s.evicted++
		}
		s.remove(oldest)
	}
	s.byKey[key] = s.order.PushBack(keptMark{key, m})
	return m
}

// find returns the mark in force under key, or nil.
func (s *marks) find(key uint64, now time.Duration) *mark {
	e, ok := s.byKey[key]
	if !ok {
		return nil
	}
	m := e.Value.(keptMark).mark
	if m.ends <= now {
		s.remove(e)
		return nil
	}
	return m
}

func (s *marks) remove(e *list.Element) {
	delete(s.byKey, s.order.Remove(e).(keptMark).key)
}

// of fills in the marks of a message with these keys.
func (s *marks) of(k *keys, into *[numKeys]*mark, now time.Duration) {
	if len(s.byKey) == 0 {
		return
	}
	for i, key := range k {
		if key != 0 {
			into[i] = s.find(key, now)
		}
	}
}
