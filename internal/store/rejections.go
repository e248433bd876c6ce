package store

import (
	"cmp"
	"slices"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Rejections gathers the events of one batch that are refused for good. The
// zero value is empty.
type Rejections struct{ list trace.Rejected }

// Add notes that the event at index is refused. Of several reasons for one
// event the first noted counts.
func (r *Rejections) Add(index int, reason string, err error) {
	r.list = append(r.list, trace.Rejection{Index: index, Reason: reason, Err: err})
}

// Reset forgets all.
func (r *Rejections) Reset() { r.list = nil }

// Rejected returns what was noted, in the order of the events, each once.
func (r *Rejections) Rejected() trace.Rejected {
	slices.SortStableFunc(r.list, func(a, b trace.Rejection) int { return cmp.Compare(a.Index, b.Index) })
	r.list = slices.CompactFunc(r.list, func(a, b trace.Rejection) bool { return a.Index == b.Index })
	return r.list
}

// Err returns what a Write that committed returns: nil, or what was refused.
func (r *Rejections) Err() error {
	if rejected := r.Rejected(); len(rejected) > 0 {
		return rejected
	}
	return nil
}
