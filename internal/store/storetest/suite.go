// Package storetest holds every [store.Store] to the same promises.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Database is an empty database with the schema applied, opened for the
// length of one test.
type Database struct {
	store.Store
	Schema store.Schema

	// Reopen closes the store and opens the same database again.
	Reopen func(t *testing.T) store.Store

	// Exec runs SQL on the database, past the store.
	Exec func(t *testing.T, sql string)

	// Refuse makes the database refuse rows of a table by their Call-ID.
	Refuse func(t *testing.T, table, callID string)
}

// An Open opens a new database.
type Open func(t *testing.T, o store.Options) Database

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Run("Write", func(t *testing.T) { testWrite(t, open) })
	t.Run("Messages", func(t *testing.T) { testMessages(t, open) })
	t.Run("Refused", func(t *testing.T) { Refused(t, open) })
	t.Run("Tables", func(t *testing.T) { testTables(t, open) })
	t.Run("A table that was dropped", func(t *testing.T) { testDropped(t, open) })
	t.Run("Times", func(t *testing.T) { testTimes(t, open) })
	t.Run("Find", func(t *testing.T) { testFind(t, open) })
	t.Run("Schema", func(t *testing.T) { testSchema(t, open) })
	t.Run("Retain", func(t *testing.T) { testRetain(t, open) })
}

// anyTime lets a store take whatever time a test comes up with.
func anyTime() store.Options {
	const centuries = 250 * 366 * 24 * time.Hour
	return store.Options{Past: centuries, Future: centuries}
}

// start is when the tests' messages were captured: two days ago, so that a
// store's bounds on times are of no concern.
func start() time.Time {
	return time.Now().UTC().Truncate(24 * time.Hour).Add(-36*time.Hour + 123456*time.Microsecond)
}

// message is a request of a call.
func message(callID, method string) []byte {
	return fmt.Appendf(nil, "%s sip:bob@biloxi.example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK77\r\n"+
		"From: Alice <sip:alice@atlanta.example.com>;tag=9fxced76sl\r\nTo: <sip:carol@biloxi.example.com>\r\n"+
		"Call-ID: %s\r\nCSeq: 7 %s\r\nContent-Length: 0\r\n\r\n", method, callID, method)
}

// event makes an event of a request, captured a number of seconds after start.
func event(callID string, second int, change ...func(*trace.Event)) trace.Event {
	e := trace.Event{
		Time:      start().Add(time.Duration(second) * time.Second),
		Agent:     trace.Agent{Name: "edge-1"},
		Transport: trace.UDP,
		Src:       netip.MustParseAddrPort("192.0.2.1:5060"),
		Dst:       netip.MustParseAddrPort("198.51.100.2:5062"),
		Direction: trace.In,
		Type:      trace.TypeSIP,
		Payload:   message(callID, "INVITE"),
	}
	for _, c := range change {
		c(&e)
	}
	e.Identify()
	return e
}

// users is a change to an event.
func users(names ...string) func(*trace.Event) {
	return func(e *trace.Event) { e.TracedUsers = names }
}

func inTable(name string) func(*trace.Event) {
	return func(e *trace.Event) { e.Table = name }
}

func payload(b []byte) func(*trace.Event) {
	return func(e *trace.Event) { e.Payload = b }
}

func flags(fl trace.Flags) func(*trace.Event) {
	return func(e *trace.Event) { e.Flags |= fl }
}

// write writes events, none of which may be refused.
func write(t *testing.T, s trace.Sink, events ...trace.Event) {
	t.Helper()
	if err := s.Write(t.Context(), events); err != nil {
		t.Fatalf("Write of %d events: %v", len(events), err)
	}
}

// writeRefused writes events and returns those refused.
func writeRefused(t *testing.T, s trace.Sink, events ...trace.Event) trace.Rejected {
	t.Helper()
	err := s.Write(t.Context(), events)
	var rejected trace.Rejected
	if !errors.As(err, &rejected) {
		t.Fatalf("Write of %d events: %v, want some rejected", len(events), err)
	}
	return rejected
}

// wantRefused checks which events were refused, and the reason, of all the same.
func wantRefused(t *testing.T, got trace.Rejected, reason string, want ...int) {
	t.Helper()
	var places []int
	for _, r := range got {
		places = append(places, r.Index)
		if r.Reason != reason {
			t.Errorf("event %d refused for %q (%v), want %q", r.Index, r.Reason, r.Err, reason)
		}
	}
	if !slices.Equal(places, want) {
		t.Errorf("events %v refused, want %v", places, want)
	}
}

// all collects a sequence.
func all[V any](t *testing.T, seq iter.Seq2[V, error]) []V {
	t.Helper()
	var list []V
	for v, err := range seq {
		if err != nil {
			t.Fatalf("after %d found: %v", len(list), err)
		}
		list = append(list, v)
	}
	return list
}

func find(t *testing.T, s store.Store, q trace.Query) []trace.Event {
	t.Helper()
	return all(t, s.Find(t.Context(), q))
}

func rows(t *testing.T, s store.Store, q trace.Query) []store.Row {
	t.Helper()
	return all(t, s.Rows(t.Context(), q))
}

// wantFound checks that a query finds just these events, in this order.
func wantFound(t *testing.T, s store.Store, q trace.Query, want ...trace.Event) {
	t.Helper()
	got := find(t, s, q)
	if len(got) != len(want) {
		t.Errorf("found %d events, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if diff := difference(got[i], want[i]); diff != "" {
			t.Errorf("event %d: %s", i, diff)
		}
	}
}

// difference tells what a store did not keep of an event.
func difference(got, want trace.Event) string {
	slices.Sort(want.TracedUsers)
	for _, f := range []struct {
		name      string
		got, want any
		same      bool
	}{
		{"ID", got.ID, want.ID, got.ID == want.ID},
		{"Time", got.Time, want.Time, got.Time.Equal(want.Time) && got.Time.Location() == time.UTC},
		{"Agent", got.Agent, want.Agent, got.Agent == want.Agent},
		{"Transport", got.Transport, want.Transport, got.Transport == want.Transport},
		{"Src", got.Src, want.Src, got.Src == want.Src},
		{"Dst", got.Dst, want.Dst, got.Dst == want.Dst},
		{"Direction", got.Direction, want.Direction, got.Direction == want.Direction},
		{"Type", got.Type, want.Type, got.Type == want.Type},
		{"CorrelationID", got.CorrelationID, want.CorrelationID, bytes.Equal(got.CorrelationID, want.CorrelationID)},
		{"length of Payload", len(got.Payload), len(want.Payload), bytes.Equal(got.Payload, want.Payload)},
		{"Table", got.Table, want.Table, got.Table == want.Table},
		{"TracedUsers", got.TracedUsers, want.TracedUsers, slices.Equal(got.TracedUsers, want.TracedUsers)},
		{"Flags", got.Flags, want.Flags, got.Flags == want.Flags},
	} {
		if !f.same {
			return fmt.Sprintf("%s = %v, want %v", f.name, f.got, f.want)
		}
	}
	return ""
}
