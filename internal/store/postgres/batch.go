package postgres

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A batch is the buffers of one Write, used again by the next.
type batch struct {
	table        string // for events that name none
	past, future time.Duration

	build      store.Builder
	tuples     []*tuples // one for each table of the batch
	spare      []*tuples
	rejections store.Rejections
	names      []string // scratch
	counts     counts
}

// counts tell what a batch came to.
type counts struct{ rows, duplicates int }

// tuples are the rows for one table, ready for COPY.
type tuples struct {
	table *table
	data  []byte
	at    []int              // where each row begins in data
	event []int32            // which event each row is of
	hours map[int64]struct{} // hours since 1970 that the rows are of
	hour  int64              // the last of them
}

func newBatch(o store.Options) *batch {
	return &batch{table: o.Table, past: o.Past, future: o.Future}
}

// How much is kept for the next batch: buffers for some tables, none too large.
const (
	keepTables = 4
	keepBytes  = 32 << 20
)

// reset makes the batch empty.
func (b *batch) reset() {
	for _, t := range b.tuples {
		if cap(t.data) <= keepBytes && len(b.spare) < keepTables {
			t.table, t.data, t.at, t.event = nil, t.data[:0], t.at[:0], t.event[:0]
			clear(t.hours)
			b.spare = append(b.spare, t)
		}
	}
	clear(b.tuples)
	b.tuples = b.tuples[:0]
	b.rejections.Reset()
	b.counts = counts{}
}

// tableOf returns the name of the table that e goes to.
func (b *batch) tableOf(e *trace.Event) string {
	if e.Table == "" {
		return b.table
	}
	return e.Table
}

// fill makes rows of events for the tables that entries holds; what cannot be
// written is noted as rejected.
func (b *batch) fill(events []trace.Event, entries map[string]entry, now time.Time) {
	oldest, newest := now.Add(-b.past), now.Add(b.future)
	var to *tuples
	name := ""
	for i := range events {
		e := &events[i]
		if e.Flags.Has(trace.NoStore) {
			continue
		}
		if n := b.tableOf(e); to == nil || n != name {
			found := entries[n]
			if found.table == nil {
				b.rejections.Add(i, found.reason, found.err)
				continue
			}
			to, name = b.into(found.table), n
		}
		if to.table.partitioned && (e.Time.Before(oldest) || e.Time.After(newest)) {
			b.rejections.Add(i, store.TimeOutOfRange, fmt.Errorf("captured at %s; taken is what was captured from %s to %s",
				e.Time.UTC().Format(time.RFC3339), oldest.UTC().Format(time.DateTime), newest.UTC().Format(time.DateTime)))
			continue
		}
		rows := b.build.Rows(e)
		for j := range rows {
			to.add(&rows[j], int32(i))
		}
	}
}

// into returns the tuples for a table.
func (b *batch) into(t *table) *tuples {
	for _, have := range b.tuples {
		if have.table == t {
			return have
		}
	}
	var fresh *tuples
	if n := len(b.spare); n > 0 {
		fresh, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		fresh = &tuples{hours: make(map[int64]struct{})}
	}
	fresh.table, fresh.hour = t, math.MinInt64
	b.tuples = append(b.tuples, fresh)
	return fresh
}

// tables returns the names of the tables that rows go to.
func (b *batch) tables() []string {
	b.names = b.names[:0]
	for _, t := range b.tuples {
		b.names = append(b.names, t.table.name)
	}
	return b.names
}

func (t *tuples) add(r *store.Row, event int32) {
	t.at = append(t.at, len(t.data))
	t.event = append(t.event, event)
	if t.table.layout == kamailio {
		t.data = appendKamailio(t.data, r, &t.table.lengths)
	} else {
		t.data = appendOwn(t.data, r)
	}
	if h := hourOf(r.Time); h != t.hour {
		t.hours[h] = struct{}{}
		t.hour = h
	}
}

// reader reads rows lo up to hi as a binary COPY.
func (t *tuples) reader(lo, hi int) io.Reader {
	end := len(t.data)
	if hi < len(t.at) {
		end = t.at[hi]
	}
	return &copyReader{parts: [3][]byte{[]byte(copyHeader), t.data[t.at[lo]:end], []byte(copyTrailer)}}
}

// A copyReader reads its parts one behind the other.
type copyReader struct {
	parts [3][]byte
	part  int
}

func (r *copyReader) Read(p []byte) (n int, err error) {
	for r.part < len(r.parts) {
		if len(r.parts[r.part]) == 0 {
			r.part++
			continue
		}
		if n == len(p) {
			return n, nil
		}
		copied := copy(p[n:], r.parts[r.part])
		r.parts[r.part] = r.parts[r.part][copied:]
		n += copied
	}
	return n, io.EOF
}

// hourOf is the number of whole hours since 1970.
func hourOf(t time.Time) int64 {
	s := t.Unix()
	h := s / 3600
	if s%3600 < 0 {
		h--
	}
	return h
}
