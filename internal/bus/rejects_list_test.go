package bus_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// listed returns the numbers of the rejects that match.
func listed(t *testing.T, s *bus.Rejects, q bus.RejectQuery) []uint64 {
	t.Helper()
	var seqs []uint64
	for r, err := range s.List(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, r.Seq)
	}
	return seqs
}

func put(t *testing.T, s *bus.Rejects, r bus.Reject) {
	t.Helper()
	if err := s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func TestRejects_areListedByWorkerReasonAndTime(t *testing.T) {
	_, c := bed(t)
	s := bus.NewRejects(c)
	if got := listed(t, s, bus.RejectQuery{}); len(got) != 0 {
		t.Errorf("listed %v of nothing", got)
	}
	events := makeEvents(0, 4)
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "unknown table", Detail: "table x does not exist", Event: &events[0]})
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "time out of range", Event: &events[1]})
	between := time.Now()
	put(t, s, bus.Reject{Worker: "fwd-hep-h-9060-00000000", Reason: "too large", Event: &events[2]})
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "undecodable frame", Detail: "bad", Raw: []byte("noise"), Header: nats.Header{"Content-Encoding": {"s2"}}})
	tests := []struct {
		name string
		q    bus.RejectQuery
		want []uint64
	}{
		{"all", bus.RejectQuery{}, []uint64{1, 2, 3, 4}},
		{"of a worker", bus.RejectQuery{Worker: "db-writer"}, []uint64{1, 2, 4}},
		{"of another", bus.RejectQuery{Worker: "nobody"}, nil},
		{"for a reason", bus.RejectQuery{Reason: "unknown table"}, []uint64{1}},
		{"since", bus.RejectQuery{Since: between}, []uint64{3, 4}},
		{"from a number", bus.RejectQuery{Seq: 4}, []uint64{4}},
		{"behind the last", bus.RejectQuery{Seq: 5}, nil},
		{"all of it", bus.RejectQuery{Worker: "db-writer", Reason: "undecodable frame", Since: between, Seq: 2}, []uint64{4}},
	}
	for _, tt := range tests {
		if got := listed(t, s, tt.q); !slices.Equal(got, tt.want) {
			t.Errorf("%s: listed %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestRejects_areReadAsTheyWere(t *testing.T) {
	_, c := bed(t)
	s := bus.NewRejects(c)
	e := makeEvents(0, 1)[0]
	e.Table, e.TracedUsers, e.Flags, e.Transport = "lab", []string{"alice"}, trace.UsersOnly, trace.WSS
	before := time.Now().Add(-time.Second)
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "unknown table", Detail: "table lab does not exist", Event: &e})
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "undecodable frame", Detail: "bad", Raw: []byte("noise"), Header: nats.Header{"Content-Encoding": {"s2"}}})
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "odd", Raw: []byte("more noise")})
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "undecodable frame", Raw: bytes.Repeat([]byte("x"), 2<<20)})

	r, err := s.Get(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.Worker != "db-writer" || r.Reason != "unknown table" || r.Detail != "table lab does not exist" || r.Seq != 1 || r.Time.Before(before) || r.Raw != nil || r.Cut != 0 {
		t.Errorf("read %+v", r)
	}
	if got, want := appendEvent(t, r.Event), appendEvent(t, &e); !bytes.Equal(got, want) {
		t.Errorf("the event is\n%q, want\n%q", got, want)
	}
	if r, err = s.Get(t.Context(), 2); err != nil || r.Event != nil || string(r.Raw) != "noise" || r.Header.Get("Content-Encoding") != "s2" {
		t.Errorf("read %+v, %v; want the noise", r, err)
	}
	if r, err = s.Get(t.Context(), 3); err != nil || r.Event != nil || string(r.Raw) != "more noise" {
		t.Errorf("read %+v, %v; want more noise", r, err)
	}
	if r, err = s.Get(t.Context(), 4); err != nil || r.Cut != 2<<20 || len(r.Raw) == 0 || len(r.Raw) >= r.Cut {
		t.Errorf("read %d bytes, cut from %d, %v; want some of %d", len(r.Raw), r.Cut, err, 2<<20)
	}
	if _, err := s.Get(t.Context(), 5); !errors.Is(err, bus.ErrNoReject) {
		t.Errorf("Get = %v, want ErrNoReject", err)
	}
}

func appendEvent(t *testing.T, e *trace.Event) []byte {
	t.Helper()
	b, err := trace.AppendEvent(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRejects_areDeletedOneByOne(t *testing.T) {
	_, c := bed(t)
	s := bus.NewRejects(c)
	events := makeEvents(0, 3)
	for i := range events {
		put(t, s, bus.Reject{Worker: "db-writer", Reason: "x", Event: &events[i]})
	}
	for _, seq := range []uint64{2, 2, 17} { // the second time, and what never was, do no harm
		if err := s.Delete(t.Context(), seq); err != nil {
			t.Errorf("Delete(%d) = %v", seq, err)
		}
	}
	if got := listed(t, s, bus.RejectQuery{}); !slices.Equal(got, []uint64{1, 3}) {
		t.Errorf("left are %v, want 1 and 3", got)
	}
}

func TestRejects_retryReachesTheWorkersAndNoForwarder(t *testing.T) {
	_, c := bed(t)
	s := bus.NewRejects(c)
	publish(t, c, 0, 1) // the frame is in the duplicate window
	e := makeEvents(0, 1)[0]
	put(t, s, bus.Reject{Worker: "db-writer", Reason: "unknown table", Event: &e})
	r, err := s.Get(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the answer to the first was lost
		if err := s.Retry(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	if got := stored(t, c); len(got) != 1 || got[0] != 2 {
		t.Errorf("the stream holds the events %v, want the first one and one retry of it", got)
	}
	retried := frameAt(t, c, 2)
	if len(retried) != 1 || !retried[0].Flags.Has(trace.NoDuplicate) || retried[0].ID != e.ID {
		t.Fatalf("retried %+v, want %s, not to be duplicated", retried, e.ID)
	}

	// Refused again, within the duplicate window of the rejects, and with the
	// first reject deleted: it must not be taken for that one.
	for i := range uint64(2) {
		if err := s.Delete(t.Context(), r.Seq); err != nil {
			t.Fatal(err)
		}
		put(t, s, bus.Reject{Worker: "db-writer", Reason: "unknown table", Event: &retried[0]})
		left := listed(t, s, bus.RejectQuery{})
		if len(left) != 1 {
			t.Fatalf("%d rejects after a retry that was refused, want 1", len(left))
		}
		if r, err = s.Get(t.Context(), left[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.Retry(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
		if retried = frameAt(t, c, 3+i); len(retried) != 1 {
			t.Fatalf("retried %d events, want 1", len(retried))
		}
	}
	if err := s.Retry(t.Context(), &bus.StoredReject{Seq: 9}); !errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Retry of no event = %v, want a permanent error", err)
	}
}

// frameAt returns the events of one frame of the stream.
func frameAt(t *testing.T, c *bus.Conn, seq uint64) []trace.Event {
	t.Helper()
	var events []trace.Event
	sink := trace.SinkFunc(func(_ context.Context, some []trace.Event) error {
		for i := range some {
			events = append(events, some[i].Clone())
		}
		return nil
	})
	if err := replay(t, c, stretch(t, c, bus.ReplayRange{First: seq, Last: seq}), bus.ReplayOptions{}, sink); err != nil {
		t.Fatal(err)
	}
	return events
}
