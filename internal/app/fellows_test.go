package app

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestFellows_areAwaitedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fe := &fellows{neighbours: newNeighbours(nil, nil, quietLog())}
		sink := fe.before(trace.SinkFunc(func(context.Context, []trace.Event) error { return nil }))
		for i, want := range []time.Duration{2 * neighboursTime, 0, 0} {
			began := time.Now()
			if err := sink.Write(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(began); got != want {
				t.Errorf("write %d waited %v, want %v", i, got, want)
			}
		}
	})
}

func TestFellows_tellWhereEventsHaveSentThemselves(t *testing.T) {
	allow, err := forward.ParseAllow([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	sink, err := forward.NewAddressed(allow, forward.Options{}, prometheus.NewRegistry(), quietLog())
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	fe := &fellows{}
	fe.named.Store(sink)
	e := calls("a", 1)
	e[0].Destinations = []string{"sip:" + collect(t).addr, "sip:192.0.2.1", "hep+udp://127.0.0.1:1"}
	_ = sink.Write(t.Context(), e) // two of them are refused
	if got, want := fe.waysTo(t.Context(), nil), 1; len(got) != want || !slices.ContainsFunc(got, func(s string) bool { _, ok := parseWay(s); return ok }) {
		t.Errorf("ways %v, want that to the plain SIP", got)
	}
}
