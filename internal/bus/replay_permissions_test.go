package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// What ctl is allowed for looking on is enough for replays and for reading
// rejects. Removing a reject and publishing an event take more.
func TestExampleServer_permissionsOfAnOperator(t *testing.T) {
	as, _ := exampleServer(t)
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
