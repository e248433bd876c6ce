package spool

import "sort"

// A ledger knows what was handed out and is not settled: a record is settled
// when it and all before it are done or lost, so that one number tells how far
// a file is done.
type ledger struct{ open []handedOut }

type handedOut struct {
	seq    uint64
	events int
	since  int64
	done   bool
	orphan bool // its file is gone
}

func (l *ledger) add(seq uint64, events int, since int64) {
	l.open = append(l.open, handedOut{seq: seq, events: events, since: since})
}

// addLost takes the place of a record that could not be read.
func (l *ledger) addLost(seq uint64) { l.open = append(l.open, handedOut{seq: seq, done: true}) }

// done marks records and returns their events.
func (l *ledger) done(seqs []uint64) (events int) {
	for _, seq := range seqs {
		i := sort.Search(len(l.open), func(i int) bool { return l.open[i].seq >= seq })
		if i < len(l.open) && l.open[i].seq == seq && !l.open[i].done {
			l.open[i].done = true
			events += l.open[i].events
		}
	}
	return events
}

// settled removes what is settled and tells it, in order.
func (l *ledger) settled(tell func(seq uint64, events int)) {
	n := 0
	for n < len(l.open) && l.open[n].done {
		tell(l.open[n].seq, l.open[n].events)
		n++
	}
	l.open = append(l.open[:0], l.open[n:]...)
}

// orphan says that the file with the records up to last is gone, and returns
// how many events of it were handed out and not settled.
func (l *ledger) orphan(last uint64) (events int) {
	for i := range l.open {
		if h := &l.open[i]; h.seq <= last && !h.orphan {
			h.orphan = true
			events += h.events
		}
	}
	return events
}

// orphaned is how many events are neither on disk nor done.
func (l *ledger) orphaned() (events int) {
	for _, h := range l.open {
		if h.orphan && !h.done {
			events += h.events
		}
	}
	return events
}

// oldest is when the first record came that is not settled; 0 is none.
func (l *ledger) oldest() int64 {
	if len(l.open) == 0 {
		return 0
	}
	return l.open[0].since
}
