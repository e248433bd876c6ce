package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// testDropped is about what somebody drops by hand.
func testDropped(t *testing.T, open Open) {
	drop := func(t *testing.T, s Database, table string) {
		t.Helper()
		s.Exec(t, `DROP VIEW `+table+`_text`)
		s.Exec(t, `DROP TABLE `+table)
	}
	for _, create := range []bool{false, true} {
		t.Run("is waited for when it is the table of events that name none", func(t *testing.T) {
			s := open(t, store.Options{CreateTables: create})
			write(t, s, event("a@b", 0))
			drop(t, s, store.DefaultTable)
			events := []trace.Event{event("c@d", 1), event("bad@b", 2, inTable("x y")), event("e@f", 3)}
			for range 6 {
				wantOutage(t, s, events, "table sip_trace does not exist; ctl schema apply makes it")
			}
			wantMissing(t, s, "table sip_trace", "view sip_trace_text")
			for range 2 {
				if err := s.Schema.Apply(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			wantMissing(t, s)
			if err := s.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			wantRefused(t, writeRefused(t, s, events...), store.BadTableName, 1)
			wantFound(t, s, trace.Query{}, events[0], events[2])
			wantTables(t, s, store.DefaultTable)
		})
	}
	t.Run("is waited for when it is another table that events without one go to", func(t *testing.T) {
		s := open(t, store.Options{Table: "mine"})
		events := []trace.Event{event("a@b", 0), event("c@d", 1, inTable(store.DefaultTable))}
		wantOutage(t, s, events, "table mine does not exist; ctl schema create-table mine makes it")
		if err := s.Schema.CreateTable(t.Context(), "mine"); err != nil {
			t.Fatal(err)
		}
		write(t, s, events...)
		wantFound(t, s, trace.Query{}, events[0])
		wantFound(t, s, trace.Query{Table: store.DefaultTable}, events[1])
	})
	t.Run("is waited for when it has other columns and events without a table go there", func(t *testing.T) {
		s := open(t, store.Options{})
		drop(t, s, store.DefaultTable)
		s.Exec(t, `CREATE TABLE sip_trace (id integer, callid text)`)
		wantOutage(t, s, []trace.Event{event("a@b", 0)}, "sip_trace")
		s.Exec(t, `DROP TABLE sip_trace`)
		if err := s.Schema.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, s, event("a@b", 0))
	})
	t.Run("is not looked at for events that are not stored", func(t *testing.T) {
		s := open(t, store.Options{})
		drop(t, s, store.DefaultTable)
		write(t, s, event("a@b", 0, flags(trace.NoStore)))
	})
	t.Run("is no start of a writer's to make again", func(t *testing.T) {
		s := open(t, store.Options{})
		drop(t, s, store.DefaultTable)
		again := s.Reopen(t)
		if err := again.Write(t.Context(), []trace.Event{event("a@b", 0)}); err == nil || errors.Is(err, trace.ErrPermanent) {
			t.Errorf("Write = %v, want it to be tried again", err)
		}
		wantMissing(t, s, "table sip_trace", "view sip_trace_text")
	})
	t.Run("is made again with all else that is missing", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "customer_7"); err != nil {
			t.Fatal(err)
		}
		kept, lost := event("a@b", 0), event("c@d", 1, inTable("customer_7"))
		write(t, s, kept, lost)
		drop(t, s, "customer_7")
		wantRefused(t, writeRefused(t, s, lost), store.UnknownTable, 0)
		if err := s.Schema.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s)
		wantFound(t, s, trace.Query{}, kept)
		write(t, s.Reopen(t), lost)
		drop(t, s, "customer_7")
		if err := s.Schema.CreateTable(t.Context(), "customer_7"); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s)
		s.Exec(t, `DROP TABLE trace_tables`)
		wantMissing(t, s, "table trace_tables")
		if err := s.Schema.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s)
	})
	t.Run("says that no other table can be made without the model", func(t *testing.T) {
		s := open(t, store.Options{CreateTables: true})
		drop(t, s, store.DefaultTable)
		if err := s.Schema.CreateTable(t.Context(), "customer_8"); err == nil || !strings.Contains(err.Error(), "ctl schema apply makes") {
			t.Errorf("CreateTable = %v", err)
		}
		err := s.Write(t.Context(), []trace.Event{event("a@b", 0, inTable("customer_8"))})
		if err == nil || errors.Is(err, trace.ErrPermanent) || !strings.Contains(err.Error(), "ctl schema apply makes") {
			t.Errorf("Write = %v, want it to be tried again", err)
		}
	})
}

// wantOutage checks that a Write fails, refusing nothing, and Ready with the
// same words.
func wantOutage(t *testing.T, s store.Store, events []trace.Event, words string) {
	t.Helper()
	if err := s.Write(t.Context(), events); err == nil || errors.Is(err, trace.ErrPermanent) || !strings.Contains(err.Error(), words) {
		t.Errorf("Write = %v, want it to be tried again: %s", err, words)
	}
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("Ready = %v, want %s", err, words)
	}
}

// wantMissing checks what Status finds missing.
func wantMissing(t *testing.T, s Database, want ...string) {
	t.Helper()
	status, err := s.Schema.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(status.Missing, ", "); got != strings.Join(want, ", ") || status.Current() != (len(want) == 0) {
		t.Errorf("missing %s, current: %t; want %s", got, status.Current(), strings.Join(want, ", "))
	}
}
