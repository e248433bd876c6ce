package forward

import (
	"slices"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// parcel is what goes to one destination, and what became of it.
type parcel struct {
	d        Destination
	events   []trace.Event
	index    []int // where they are in the events of Write
	err      error // to be tried again
	rejected trace.Rejected
}

// add adds the event at index, unless it has been added or has arrived.
func (p *parcel) add(e *trace.Event, index int, arrived map[arrival]bool) {
	if n := len(p.index); n > 0 && p.index[n-1] == index {
		return
	}
	if len(arrived) > 0 && arrived[arrival{e.ID, p.d}] {
		return
	}
	p.events = append(p.events, *e)
	p.index = append(p.index, index)
}

// reject rejects all events of the parcel.
func (p *parcel) reject(count *counters, reason string, err error) {
	no := rejects{count: count}
	for _, i := range p.index {
		no.add(i, reason, err)
	}
	p.rejected = no.list
}

// refused reports whether the event at index of Write was rejected.
func (p *parcel) refused(index int) bool {
	return slices.ContainsFunc(p.rejected, func(r trace.Rejection) bool { return r.Index == index })
}

// firstOfEach leaves one rejection for each event, in the order of the events.
func firstOfEach(list trace.Rejected) trace.Rejected {
	slices.SortStableFunc(list, func(x, y trace.Rejection) int { return x.Index - y.Index })
	return slices.CompactFunc(list, func(x, y trace.Rejection) bool { return x.Index == y.Index })
}
