package storetest

import (
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func testTimes(t *testing.T, open Open) {
	times := []string{ // in order
		"1970-01-01T00:00:00Z",
		"1970-01-01T00:00:00.000001Z",
		"1999-12-31T23:59:59.999999Z",
		"2000-01-01T00:00:00Z",
		"2024-02-29T23:59:59.999999Z",
		"2024-03-01T00:00:00Z",
		"2026-03-29T00:59:59.999999Z", // the clocks go forward in Europe
		"2026-03-29T01:00:00Z",
		"2026-10-25T00:30:00.5Z", // the hour that comes twice
		"2026-10-25T01:30:00.5Z",
		"2038-01-19T03:14:08Z",
		"2106-02-07T06:28:15.999999Z",
		"2106-02-07T06:28:16Z",
	}
	var events []trace.Event
	for i, text := range times {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, event("a@b", i, func(e *trace.Event) { e.Time = at }))
	}
	t.Run("keeps times to the microsecond, in one batch", func(t *testing.T) {
		s := open(t, anyTime())
		for range 2 {
			write(t, s, events...)
		}
		wantFound(t, s, trace.Query{}, events...)
	})
	t.Run("finds by each time: from is in, to is out", func(t *testing.T) {
		s := open(t, anyTime())
		write(t, s, events...)
		for i := range events {
			at := events[i].Time
			wantFound(t, s, trace.Query{From: at}, events[i:]...)
			wantFound(t, s, trace.Query{To: at}, events[:i]...)
			wantFound(t, s, trace.Query{From: at, To: at.Add(time.Microsecond)}, events[i])
			wantFound(t, s, trace.Query{From: at, To: at})
		}
	})
	t.Run("cuts nanoseconds", func(t *testing.T) {
		s := open(t, anyTime())
		e := event("a@b", 0)
		finer := e
		finer.Time = e.Time.Add(999 * time.Nanosecond)
		write(t, s, finer)
		wantFound(t, s, trace.Query{}, e)
	})
	t.Run("takes a time of any zone for the same time", func(t *testing.T) {
		s := open(t, anyTime())
		e := event("a@b", 0)
		elsewhere := e
		elsewhere.Time = e.Time.In(time.FixedZone("", 14*3600))
		write(t, s, elsewhere, e)
		wantFound(t, s, trace.Query{From: elsewhere.Time}, e)
	})
}
