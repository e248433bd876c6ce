package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func testBatch(t testing.TB, events int) (*batch, []trace.Event, map[string]entry) {
	t.Helper()
	o, err := store.Options{}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	list := make([]trace.Event, events)
	for i := range list {
		list[i] = trace.Event{Time: time.Now(), Type: trace.TypeSIP, Transport: trace.UDP,
			Payload: fmt.Appendf(nil, "OPTIONS sip:bob@b SIP/2.0\r\nCall-ID: %d@b\r\nCSeq: 1 OPTIONS\r\n\r\n", i)}
		list[i].Identify()
	}
	table := &table{name: o.Table, partitioned: true}
	return newBatch(o), list, map[string]entry{o.Table: {table: table}}
}

func TestBatch_doesNotAllocate(t *testing.T) {
	b, events, entries := testBatch(t, 500)
	n := testing.AllocsPerRun(20, func() {
		b.reset()
		b.fill(events, entries, time.Now())
	})
	if n > 2 { // a new hour may have begun
		t.Errorf("%v allocations for %d events, want none", n, len(events))
	}
}

func TestTuples_reader_readsThePartAskedFor(t *testing.T) {
	b, events, entries := testBatch(t, 5)
	b.fill(events, entries, time.Now())
	all := b.tuples[0]
	for lo := range 5 {
		for hi := lo + 1; hi <= 5; hi++ {
			got, err := io.ReadAll(iotest.HalfReader(all.reader(lo, hi)))
			if err != nil {
				t.Fatal(err)
			}
			body, ok := bytes.CutPrefix(got, []byte(copyHeader))
			if !ok || !bytes.HasSuffix(body, []byte(copyTrailer)) {
				t.Fatalf("rows %d to %d: %q", lo, hi, got)
			}
			if n := countTuples(t, body); n != hi-lo {
				t.Errorf("rows %d to %d are %d tuples", lo, hi, n)
			}
			for i := range events {
				in := bytes.Contains(body, events[i].Payload)
				if want := lo <= i && i < hi; in != want {
					t.Errorf("rows %d to %d: has event %d: %t", lo, hi, i, in)
				}
			}
		}
	}
}

// countTuples walks through the tuples of a binary COPY.
func countTuples(t *testing.T, b []byte) int {
	t.Helper()
	for n := 0; ; n++ {
		columns := binary.BigEndian.Uint16(b)
		b = b[2:]
		if columns == 0xffff {
			if len(b) > 0 {
				t.Errorf("%d bytes behind the end", len(b))
			}
			return n
		}
		if int(columns) != len(ownColumns) {
			t.Fatalf("tuple of %d columns, want %d", columns, len(ownColumns))
		}
		for range columns {
			b = b[4+binary.BigEndian.Uint32(b):]
		}
	}
}

func TestTables_forgetsNamesThatStrangersMakeUp(t *testing.T) {
	ts := newTables("sip_trace")
	good := entry{table: &table{name: "good"}}
	ts.remember(map[string]entry{"good": good})
	for i := range 5 * maxDenied {
		ts.remember(map[string]entry{fmt.Sprintf("bad_%d", i): unusable(store.UnknownTable, nil)})
	}
	if n := len(ts.byName); n > maxDenied+1 {
		t.Errorf("%d names remembered, want %d at most", n, maxDenied+1)
	}
	if e, ok := ts.known("good"); !ok || e.table != good.table {
		t.Error("a good table was forgotten")
	}
}

func TestTables_believesBadNewsForAWhile(t *testing.T) {
	ts := newTables("sip_trace")
	ts.remember(map[string]entry{"bad": unusable(store.UnknownTable, nil)})
	if e, ok := ts.known("bad"); !ok || e.reason != store.UnknownTable {
		t.Errorf("known = %+v, %t", e, ok)
	}
	old := unusable(store.UnknownTable, nil)
	if old.until = old.until.Add(-5 * time.Second); old.until.After(time.Now()) {
		t.Error("bad news is believed for longer than 5 s")
	}
	ts.remember(map[string]entry{"bad": old})
	if _, ok := ts.known("bad"); ok {
		t.Error("old news is believed")
	}
	ts.remember(map[string]entry{"sip_trace": unusable(store.UnknownTable, nil)})
	if _, ok := ts.known("sip_trace"); ok {
		t.Error("the table of events that name none is believed to be missing")
	}
}

func BenchmarkBatch(b *testing.B) {
	batch, events, entries := testBatch(b, 5000)
	b.ReportAllocs()
	for b.Loop() {
		batch.reset()
		batch.fill(events, entries, time.Now())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/row")
}

// As much as a consumer brings at a time: 16 MiB.
func TestBatch_doesNotAllocateForLargeMessages(t *testing.T) {
	b, events, entries := testBatch(t, 4000)
	for i := range events {
		events[i].Payload = append(events[i].Payload, make([]byte, 4096)...)
	}
	n := testing.AllocsPerRun(5, func() {
		b.reset()
		b.fill(events, entries, time.Now())
	})
	if n > 2 { // a new hour may have begun
		t.Errorf("%v allocations for %d events, want none", n, len(events))
	}
}
