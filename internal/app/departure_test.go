package app

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// newTestComebacks knows of forwarders that send copies on some ways.
func newTestComebacks(t testing.TB, ways ...way) *comebacks {
	t.Helper()
	n := newNeighbours(nil, nil, quietLog())
	p := &places{sends: make(map[way]bool)}
	for _, w := range ways {
		p.sends[w] = true
	}
	n.known.Store(p)
	c, err := newComebacks(n, prometheus.NewRegistry(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// identified makes events with IDs.
func identified(n int) []trace.Event {
	list := events(n)
	for i := range list {
		list[i].Src, list[i].Transport = unmap(list[i].Src), trace.UDP
		list[i].Identify()
	}
	return list
}

func TestDeparture_namesTheTapsTableWhereNoRuleDid(t *testing.T) {
	var got []trace.Event
	d := &departure{table: "sip_trace_edge", out: trace.SinkFunc(func(_ context.Context, e []trace.Event) error {
		got = append(got, e...)
		return nil
	})}
	list := identified(2)
	list[1].Table = "sip_trace_acme"
	for range 2 { // a file may say the same twice
		if err := d.Write(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 4 || got[0].Table != "sip_trace_edge" || got[1].Table != "sip_trace_acme" {
		t.Errorf("%d events, tables %q and %q", len(got), got[0].Table, got[1].Table)
	}
}

func TestComebacks_knowEventsAgainForAWhile(t *testing.T) {
	c := newTestComebacks(t)
	now := time.Unix(1_800_000_000, 0)
	list := identified(3)
	if got := c.without(append([]trace.Event(nil), list[:2]...), now); len(got) != 2 {
		t.Fatalf("%d of 2 new events pass", len(got))
	}
	got := c.without([]trace.Event{list[0], list[2], list[1]}, now.Add(time.Minute))
	if len(got) != 1 || got[0].ID != list[2].ID {
		t.Errorf("%d events pass, want the one that is new", len(got))
	}
	if n := testutil.ToFloat64(c.again); n != 2 {
		t.Errorf("%v counted, want 2", n)
	}
	if got := c.without(append([]trace.Event(nil), list[:2]...), now.Add(departedTime*time.Second)); len(got) != 2 {
		t.Errorf("%d of 2 pass after a while, want both", len(got))
	}
}

// Events that share a shelf must not push each other out on every round.
func TestComebacks_endTheRoundsOfEventsThatShareAShelf(t *testing.T) {
	c := newTestComebacks(t)
	list := identified(shelfSize)
	for i := range list {
		binary.BigEndian.PutUint16(list[i].ID[14:], 4711)
		list[i].ID[8] = byte(i)
	}
	now := time.Unix(1_800_000_000, 0)
	if got := c.without(append([]trace.Event(nil), list...), now); len(got) != shelfSize {
		t.Fatalf("%d of %d pass", len(got), shelfSize)
	}
	if got := c.without(append([]trace.Event(nil), list...), now); len(got) != 0 {
		t.Errorf("%d of %d go round again", len(got), shelfSize)
	}
}

func TestComebacks_knowTheFleetsOwnCopies(t *testing.T) {
	at := netip.MustParseAddrPort
	c := newTestComebacks(t, way{netip.MustParseAddr("192.0.2.9"), at("192.0.2.5:5888")})
	tests := []struct {
		src, dst  string
		transport trace.Transport
		copied    bool
	}{
		{"192.0.2.9:40000", "192.0.2.5:5888", trace.UDP, true},
		{"192.0.2.9:1", "192.0.2.5:5888", trace.UDP, true},
		{"192.0.2.9:40000", "192.0.2.5:5888", trace.TCP, false},
		{"192.0.2.9:40000", "192.0.2.5:5889", trace.UDP, false},
		{"192.0.2.8:40000", "192.0.2.5:5888", trace.UDP, false},
		{"192.0.2.5:5888", "192.0.2.9:40000", trace.UDP, false},
	}
	for _, tt := range tests {
		e := identified(1)[0]
		e.Src, e.Dst, e.Transport = at(tt.src), at(tt.dst), tt.transport
		e.Identify()
		if copied := len(c.without([]trace.Event{e}, time.Now())) == 0; copied != tt.copied {
			t.Errorf("%s %s → %s: own copy %v, want %v", tt.transport, tt.src, tt.dst, copied, tt.copied)
		}
	}
}

func TestDeparture_doesNotAllocate(t *testing.T) {
	c := newTestComebacks(t, way{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddrPort("192.0.2.5:5888")})
	d := &departure{table: "edge", loops: c, out: trace.SinkFunc(func(context.Context, []trace.Event) error { return nil })}
	list := identified(64)
	if n := testing.AllocsPerRun(100, func() { _ = d.Write(t.Context(), list) }); n != 0 {
		t.Errorf("%v allocations for 64 events, want none", n)
	}
}

func BenchmarkDeparture(b *testing.B) {
	c := newTestComebacks(b)
	d := &departure{table: "edge", loops: c, out: trace.SinkFunc(func(context.Context, []trace.Event) error { return nil })}
	list := identified(64)
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		for i := range list { // all are new
			n++
			binary.BigEndian.PutUint64(list[i].ID[8:], n*0x9e3779b97f4a7c15)
		}
		_ = d.Write(b.Context(), list)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/event")
}
