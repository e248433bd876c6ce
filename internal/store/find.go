package store

import (
	"context"
	"iter"
	"slices"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// pageSize is how many rows one query brings. Between queries no connection
// and no snapshot is held, however slowly the rows are used.
const pageSize = 500

// Fetch runs the query of one page.
type Fetch func(ctx context.Context, p Page) ([]Row, error)

// Rows yields the rows that match q, page by page: what [Store] promises of its Rows.
func (fetch Fetch) Rows(ctx context.Context, q trace.Query) iter.Seq2[Row, error] {
	if q.Limit <= 0 {
		return fetch.walk(ctx, q, false, false)
	}
	return newest(q.Limit, fetch.walk(ctx, q, true, false))
}

// Find yields the events that match q: what [Store] promises of its Find.
func (fetch Fetch) Find(ctx context.Context, q trace.Query) iter.Seq2[trace.Event, error] {
	if q.Limit <= 0 {
		return events(q.Table, fetch.walk(ctx, q, false, true))
	}
	return newest(q.Limit, events(q.Table, fetch.walk(ctx, q, true, true)))
}

// walk yields rows page by page, newest first with desc.
func (fetch Fetch) walk(ctx context.Context, q trace.Query, desc, whole bool) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		p := Page{Query: q, Desc: desc, Events: whole, Size: pageSize}
		if q.Limit > 0 && !q.Addr.IsValid() && q.Port == 0 { // else not every row of a page matches
			p.Size = min(pageSize, q.Limit)
		}
		for {
			rows, err := fetch(ctx, p)
			if err != nil {
				yield(Row{}, err)
				return
			}
			for i := range rows {
				if matches(q, &rows[i]) && !yield(rows[i], nil) {
					return
				}
			}
			if len(rows) < p.Size {
				return
			}
			last := rows[len(rows)-1].Key()
			p.After = &last
		}
	}
}

// events joins neighbouring rows of one event. They are from table, and would go there again.
func events(table string, rows iter.Seq2[Row, error]) iter.Seq2[trace.Event, error] {
	return func(yield func(trace.Event, error) bool) {
		var e trace.Event
		open := false
		for r, err := range rows {
			if err != nil {
				yield(trace.Event{}, err)
				return
			}
			if open && r.EventID == e.ID && r.Time.Equal(e.Time) {
				add(&e, &r)
				continue
			}
			if open && !yield(e, nil) {
				return
			}
			e, open = r.Event(), true
			e.Table = table
		}
		if open {
			yield(e, nil)
		}
	}
}

// newest yields the first limit values of seq, which has the newest first, in
// time order.
func newest[V any](limit int, seq iter.Seq2[V, error]) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		var kept []V
		for v, err := range seq {
			if err != nil {
				yield(v, err)
				return
			}
			if kept = append(kept, v); len(kept) == limit {
				break
			}
		}
		for _, v := range slices.Backward(kept) {
			if !yield(v, nil) {
				return
			}
		}
	}
}
