package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func testRetain(t *testing.T, open Open) {
	const day = 24 * time.Hour
	now := time.Now().UTC().Truncate(time.Second)
	var events []trace.Event // one a day, the oldest first
	for age := 6; age >= 0; age-- {
		events = append(events, event("a@b", 0, func(e *trace.Event) { e.Time = now.Add(-time.Duration(age) * day) }))
	}
	t.Run("drops what is older than the age, give or take a day", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, events...)
		for range 2 {
			dropped, err := s.Schema.Retain(t.Context(), store.Retention{Age: 3*day + time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			left := find(t, s, trace.Query{})
			if len(left) < 4 || len(left) > 5 {
				t.Errorf("%d events left, dropped %q, want 4 or 5 left", len(left), dropped)
			}
			wantFound(t, s, trace.Query{}, events[len(events)-len(left):]...)
		}
	})
	t.Run("drops the oldest above the size, but not the last 24 hours", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, events...)
		if _, err := s.Schema.Retain(t.Context(), store.Retention{Bytes: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		wantFound(t, s, trace.Query{}, events...)
		dropped, err := s.Schema.Retain(t.Context(), store.Retention{Bytes: 1})
		if err != nil || len(dropped) == 0 {
			t.Fatalf("dropped %q, %v", dropped, err)
		}
		left := find(t, s, trace.Query{})
		if len(left) < 1 || len(left) > 2 {
			t.Errorf("%d events left, want 1 or 2", len(left))
		}
		wantFound(t, s, trace.Query{}, events[len(events)-len(left):]...)
	})
	t.Run("drops from the one table it is told", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		old := events[0]
		old.Table = "other"
		write(t, s, events[0], old)
		if _, err := s.Schema.Retain(t.Context(), store.Retention{Table: "other", Age: day}); err != nil {
			t.Fatal(err)
		}
		wantFound(t, s, trace.Query{}, events[0])
		wantFound(t, s, trace.Query{Table: "other"})
	})
	t.Run("drops the oldest of all tables, not of the first by name", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "a_lab"); err != nil {
			t.Fatal(err)
		}
		write(t, s, NewTraffic(1, now.Add(-30*day)).Events(10_000)...)
		young := event("a@b", 0, inTable("a_lab"), func(e *trace.Event) { e.Time = now.Add(-3 * day) })
		write(t, s, young)
		for _, dry := range []bool{true, false} {
			dropped, err := s.Schema.Retain(t.Context(), store.Retention{Bytes: 4 << 20, DryRun: dry})
			if err != nil || len(dropped) != 1 || !strings.HasPrefix(dropped[0], store.DefaultTable) {
				t.Errorf("dropped %q, %v; want rows of %s alone", dropped, err, store.DefaultTable)
			}
		}
		wantFound(t, s, trace.Query{Table: "a_lab"}, young)
	})
	t.Run("takes no other table's bytes for those of the one it is told", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "lab"); err != nil {
			t.Fatal(err)
		}
		small := event("a@b", 0, inTable("lab"), func(e *trace.Event) { e.Time = now.Add(-3 * day) })
		write(t, s, NewTraffic(1, now.Add(-time.Hour)).Events(10_000)...)
		write(t, s, small)
		_, _ = s.Schema.Retain(t.Context(), store.Retention{Table: "lab", Bytes: 4 << 20}) // it may refuse
		wantFound(t, s, trace.Query{Table: "lab"}, small)
	})
	t.Run("goes on when a table was dropped by hand", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "lab"); err != nil {
			t.Fatal(err)
		}
		write(t, s, events[0])
		s.Exec(t, `DROP VIEW lab_text`)
		s.Exec(t, `DROP TABLE lab`)
		if _, err := s.Schema.Retain(t.Context(), store.Retention{Age: day}); err != nil {
			t.Error(err)
		}
		wantFound(t, s, trace.Query{})
	})
	t.Run("takes what comes for a time that was dropped", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, events...)
		if _, err := s.Schema.Retain(t.Context(), store.Retention{Age: day}); err != nil {
			t.Fatal(err)
		}
		write(t, s, events...)
		wantFound(t, s, trace.Query{}, events...)
	})
	t.Run("does not disturb who writes", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, events...)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		written, failed := 0, error(nil)
		wg.Go(func() {
			traffic := NewTraffic(1, now.Add(-time.Hour))
			for ctx.Err() == nil && failed == nil {
				batch := traffic.Events(20)
				failed = s.Write(t.Context(), batch)
				written += len(batch)
			}
		})
		_, err := s.Schema.Retain(t.Context(), store.Retention{Age: 2 * day})
		stop()
		wg.Wait()
		if err := errors.Join(err, failed); err != nil {
			t.Fatal(err)
		}
		if got := len(find(t, s, trace.Query{From: now.Add(-2 * time.Hour)})); got != written+1 {
			t.Errorf("%d events of the last hours, want %d", got, written+1)
		}
	})
	t.Run("says what would go, and drops nothing", func(t *testing.T) {
		s := open(t, store.Options{})
		now := time.Now()
		old := NewTraffic(1, now.Add(-5*day)).Events(20)
		write(t, s, old...)
		for _, r := range []store.Retention{{Age: 2 * day, DryRun: true}, {Bytes: 1, DryRun: true}} {
			would, err := s.Schema.Retain(t.Context(), r)
			if err != nil || len(would) == 0 {
				t.Errorf("Retain(%+v) = %v, %v; want what would go", r, would, err)
			}
		}
		if got := len(find(t, s, trace.Query{})); got != len(old) {
			t.Errorf("%d events are left, want all %d", got, len(old))
		}
	})
	t.Run("refuses to drop everything", func(t *testing.T) {
		s := open(t, store.Options{})
		for _, r := range []store.Retention{{}, {Age: -1}, {Bytes: -1}, {Age: day, Table: "x; DROP TABLE sip_trace"}} {
			if _, err := s.Schema.Retain(t.Context(), r); err == nil {
				t.Errorf("Retain took %+v", r)
			}
		}
	})
}
