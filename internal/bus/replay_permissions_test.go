package bus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// What ctl is allowed for looking on is enough for replays and for reading
// rejects. Removing a reject and publishing an event take more.
func TestExampleServer_permissionsOfAnOperator(t *testing.T) {
	as, _ := exampleServer(t, 1)
	admin := as("admin", "ctl")
	ensure(t, admin, bus.StreamConfig{})
	durables(t, admin, "db-writer")
	publish(t, as("tap", "tap"), 0, 100)
	put(t, bus.NewRejects(as("db-writer", "db-writer")), bus.Reject{Worker: "db-writer", Reason: "x", Event: &makeEvents(0, 1)[0]})

	ctl := as("ctl", "ctl")
	var k keeper
	s := stretch(t, ctl, bus.ReplayRange{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)})
	if err := replay(t, ctl, s, bus.ReplayOptions{}, &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 100)
	positions := bus.NewReplayPositions(ctl)
	p, err := positions.Get(t.Context(), "x")
	if err == nil {
		_, err = positions.Put(t.Context(), p)
	}
	if err != nil {
		t.Errorf("position not kept: %v", err)
	}
	rejects := bus.NewRejects(ctl)
	if got := listed(t, rejects, bus.RejectQuery{}); len(got) != 1 {
		t.Errorf("listed %v, want one", got)
	}
	r, err := rejects.Get(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if rejects.Delete(short, 1) == nil || rejects.Retry(short, &r) == nil {
		t.Error("who may only look on has changed something")
	}
	rejects = bus.NewRejects(admin)
	if err := rejects.Retry(t.Context(), &r); err != nil {
		t.Error(err)
	}
	if err := rejects.Delete(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

// The user who may only replay can do just that: by time and by sequence, with
// a position that is kept, from one stream and from several.
func TestExampleServer_permissionsOfAReplay(t *testing.T) {
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d streams", shards), func(t *testing.T) {
			as, _ := exampleServer(t, shards)
			admin := as("admin", "ctl")
			ensure(t, admin, bus.StreamConfig{Shards: shards})
			durables(t, admin, "db-writer")
			spread(t, as("tap", "tap"), 0, 500)

			c := as("replay", "ctl")
			var k keeper
			all := stretches(t, c, bus.ReplayRange{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)})
			if err := bus.NewReplay(c, all, bus.ReplayOptions{BatchEvents: 100}, testLog(t)).Run(t.Context(), &k); err != nil {
				t.Fatal(err)
			}
			wantSerials(t, &k, 0, 500)
			if s := stretch(t, c, bus.ReplayRange{Shard: new(shards - 1), First: 2}); s.First != 2 {
				t.Errorf("by sequence: %+v", s)
			}

			positions := bus.NewReplayPositions(c)
			p, err := positions.Get(t.Context(), "x")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 2 { // made, and changed
				p.Owner, p.Places = "me", []bus.ReplayPlace{{Stream: all[0].Stream, Seq: uint64(i)}}
				if p, err = positions.Put(t.Context(), p); err != nil {
					t.Fatalf("position not kept: %v", err)
				}
			}
			if w, err := admin.Consumers(t.Context()); err != nil || len(w) != 1 || w[0].Redelivered+w[0].AckPending != 0 {
				t.Errorf("durables %+v, %v, want db-writer untouched", w, err)
			}
			short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := bus.NewStateStore(c).Set(short, bus.State{On: true}); err == nil {
				t.Error("who may only replay has switched tracing")
			}
		})
	}
}
