package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func testWrite(t *testing.T, open Open) {
	t.Run("an event comes back as it was", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0, users("bob", "alice"))
		write(t, s, e)
		wantFound(t, s, trace.Query{}, e)
	})
	t.Run("keeps a redelivered event once", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0, users("alice"))
		write(t, s, e)
		write(t, s, e, e)
		write(t, s, event("c@d", 1), e, event("e@f", 2))
		if got := len(rows(t, s, trace.Query{})); got != 4 {
			t.Errorf("%d rows, want 4", got)
		}
	})
	t.Run("keeps an event that is twice in one batch once", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0)
		write(t, s, e, event("c@d", 1), e)
		if got := len(rows(t, s, trace.Query{})); got != 2 {
			t.Errorf("%d rows, want 2", got)
		}
	})
	t.Run("keeps what was written when it is closed", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0)
		write(t, s, e)
		again := s.Reopen(t)
		wantFound(t, again, trace.Query{}, e)
		write(t, again, e)
		wantFound(t, again, trace.Query{}, e)
	})
	t.Run("makes a row for the event and one for each traced user", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, event("a@b", 0, users("bob", "alice", "bob", "")))
		wantUsers(t, s, "", "alice", "bob")
	})
	t.Run("makes only the users' rows of an event that the global state did not select", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0, users("bob", "alice"), flags(trace.UsersOnly))
		write(t, s, e)
		wantUsers(t, s, "alice", "bob")
		wantFound(t, s, trace.Query{}, e)
	})
	t.Run("passes over a duplicate also where somebody has added a column", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, event("a@b", 0))
		s.Exec(t, `ALTER TABLE sip_trace ADD COLUMN tenant text NOT NULL DEFAULT 'x'`)
		write(t, s, event("a@b", 0), event("c@d", 1))
		wantFound(t, s, trace.Query{}, event("a@b", 0), event("c@d", 1))
	})
	t.Run("adds the rows of users that come later", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, event("a@b", 0, users("alice"), flags(trace.UsersOnly)))
		write(t, s, event("a@b", 0, users("bob")))
		wantUsers(t, s, "", "alice", "bob")
	})
	t.Run("stores nothing of an event that is not to be stored", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, event("a@b", 0, flags(trace.NoStore)), event("c@d", 1, flags(trace.NoStore), users("alice")))
		write(t, s, event("e@f", 0, flags(trace.UsersOnly)))
		if got := len(rows(t, s, trace.Query{})); got != 0 {
			t.Errorf("%d rows, want none", got)
		}
	})
	t.Run("takes an empty batch", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s)
		if err := s.Write(t.Context(), []trace.Event{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("keeps nothing that events point to", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0)
		want := e.Clone()
		batch := []trace.Event{e}
		write(t, s, batch...)
		for i := range e.Payload {
			e.Payload[i] = 'x'
		}
		batch[0] = trace.Event{}
		wantFound(t, s, trace.Query{}, want)
	})
	t.Run("leaves the events as they are", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0, users("bob", "alice"))
		batch := []trace.Event{e, e}
		write(t, s, batch...)
		for _, got := range batch {
			if !slices.Equal(got.TracedUsers, []string{"bob", "alice"}) || got.ID != e.ID {
				t.Errorf("event is %+v now", got)
			}
		}
	})
	t.Run("names an event that has no ID yet", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0)
		want := e
		e.ID = trace.ID{}
		write(t, s, e)
		wantFound(t, s, trace.Query{}, want)
	})
	t.Run("writes nothing when it is told to stop", func(t *testing.T) {
		s := open(t, store.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := s.Write(ctx, []trace.Event{event("a@b", 0)})
		if !errors.Is(err, context.Canceled) || errors.Is(err, trace.ErrPermanent) {
			t.Errorf("Write = %v, want a cancelled context", err)
		}
		wantFound(t, s, trace.Query{})
	})
	t.Run("keeps each event once that several writers write at once", func(t *testing.T) { testWriters(t, open) })
	t.Run("is ready and can be maintained", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := s.Maintain(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

func wantUsers(t *testing.T, s store.Store, want ...string) {
	t.Helper()
	var got []string
	for _, r := range rows(t, s, trace.Query{}) {
		got = append(got, string(r.TracedUser))
	}
	if !slices.Equal(got, want) {
		t.Errorf("traced users of the rows %q, want %q", got, want)
	}
}

// testWriters has four writers write batches that overlap: writer w writes
// events w*100 up to w*100+400, in parts and from a place of its own.
func testWriters(t *testing.T, open Open) {
	const writers, share, span, part = 4, 100, 400, 50
	s := open(t, store.Options{})
	traffic := NewTraffic(7, start()).Events((writers-1)*share + span)
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			mine := slices.Clone(traffic[w*share : w*share+span])
			for lo := 0; lo < span && errs[w] == nil; lo += part {
				from := (lo + w*part) % span
				errs[w] = s.Write(t.Context(), mine[from:from+part])
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := len(rows(t, s, trace.Query{})); got != len(traffic) {
		t.Errorf("%d rows, want %d", got, len(traffic))
	}
}
