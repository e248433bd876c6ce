package app

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func newTestIntake(t *testing.T, out trace.Sink) *intake {
	t.Helper()
	m, err := newIntakeMetrics(prometheus.NewRegistry(), "test")
	if err != nil {
		t.Fatal(err)
	}
	en, err := rules.NewEngine(rules.Options{}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	in := &intake{gate: new(Gate), all: true, rules: en, agent: trace.Agent{ID: 7, Name: "edge"}, metrics: m, out: out}
	in.gate.Set(true, 1)
	return in
}

func events(n int) []trace.Event {
	out := make([]trace.Event, n)
	for i := range out {
		out[i] = trace.Event{
			Time: time.Unix(1_800_000_000, int64(i)*1000), Payload: []byte("x"),
			Src: netip.MustParseAddrPort("[::ffff:192.0.2.1]:5060"), Dst: netip.MustParseAddrPort("198.51.100.1:5060"),
		}
	}
	return out
}

func TestIntake_completesWithoutTouchingTheCallersEvents(t *testing.T) {
	var got []trace.Event
	in := newTestIntake(t, trace.SinkFunc(func(_ context.Context, e []trace.Event) error {
		got = append(got, e...)
		return nil
	}))
	given := events(2)
	given[1].Agent = trace.Agent{ID: 2001}
	if err := in.Write(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	if !given[0].ID.IsZero() || given[0].Agent.Name != "" {
		t.Error("the caller's event was changed")
	}
	if got[0].Agent.Name != "edge" || got[1].Agent != (trace.Agent{ID: 2001}) {
		t.Errorf("agents %v and %v, want the tap's, then the sender's", got[0].Agent, got[1].Agent)
	}
	if got[0].ID.IsZero() || got[0].Src.String() != "192.0.2.1:5060" {
		t.Errorf("id %v, source %v; want an id, and an IPv4 address as such", got[0].ID, got[0].Src)
	}
}

func TestIntake_closedGateLetsNothingThrough(t *testing.T) {
	in := newTestIntake(t, trace.SinkFunc(func(context.Context, []trace.Event) error {
		t.Error("something came through")
		return nil
	}))
	in.gate.Set(false, 2)
	if err := in.Write(t.Context(), events(3)); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(in.metrics.off); got != 3 {
		t.Errorf("%v counted as unselected, want 3", got)
	}
}

// room is an outlet that takes so many events.
type room int

func (r *room) Offer(events []trace.Event) int {
	n := min(int(*r), len(events))
	*r -= room(n)
	return n
}

func TestOffering_countsWhatDoesNotFit(t *testing.T) {
	left := room(5)
	in := newTestIntake(t, nil)
	in.out = offering(&left, in.metrics)
	for range 3 {
		if err := in.Write(t.Context(), events(3)); err != nil {
			t.Fatal(err)
		}
	}
	if got := testutil.ToFloat64(in.metrics.full); got != 4 {
		t.Errorf("%v counted as lost, want 4", got)
	}
}

func TestIntake_doesNotAllocate(t *testing.T) {
	all := room(1 << 40)
	in := newTestIntake(t, nil)
	in.out = offering(&all, in.metrics)
	batch := events(64)
	if n := testing.AllocsPerRun(100, func() { _ = in.Write(t.Context(), batch) }); n > 0 {
		t.Errorf("%v allocations for 64 events, want none", n)
	}
}
