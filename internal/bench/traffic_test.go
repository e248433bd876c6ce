package bench_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bench"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

func newTraffic(t testing.TB, seed uint64, calls int) *bench.Traffic {
	t.Helper()
	traffic, err := bench.NewTraffic(seed, calls, "bench")
	if err != nil {
		t.Fatal(err)
	}
	return traffic
}

// events decodes the next n packets, strictly.
func events(t *testing.T, traffic *bench.Traffic, n int, start time.Time) []trace.Event {
	t.Helper()
	var d hep.Decoder
	var names trace.Names
	list := make([]trace.Event, n)
	for i := range list {
		var p hep.Packet
		if err := d.Decode(&p, traffic.Append(nil, start.Add(time.Duration(i)*time.Microsecond))); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if p.Quirks != 0 {
			t.Fatalf("packet %d has quirks: %v", i, p.Quirks)
		}
		trace.FromHEP(&list[i], &p, &names)
		list[i].Identify()
	}
	return list
}

func scan(e *trace.Event) sipmsg.Message {
	var m sipmsg.Message
	sipmsg.Scan(&m, e.Payload)
	return m
}

func TestTraffic_isWhatProxiesSend(t *testing.T) {
	const calls = 48
	start := time.UnixMicro(1_800_000_000_000_000).UTC()
	list := events(t, newTraffic(t, 1, calls), calls*8*4, start)

	t.Run("messages have 800 bytes on average", func(t *testing.T) {
		size := 0
		for i := range list {
			size += len(list[i].Payload)
		}
		if got := size / len(list); got < 790 || got > 810 {
			t.Errorf("average size = %d, want 800", got)
		}
	})
	t.Run("every message scans without a flaw", func(t *testing.T) {
		for i := range list {
			if m := scan(&list[i]); m.Flags != 0 || bytes.ContainsAny(list[i].Payload, "{}") {
				t.Fatalf("message %d: %v in\n%s", i, m.Flags, list[i].Payload)
			}
		}
	})
	t.Run("capture times are those given", func(t *testing.T) {
		for i := range list {
			if want := start.Add(time.Duration(i) * time.Microsecond); !list[i].Time.Equal(want) {
				t.Fatalf("time of %d = %v, want %v", i, list[i].Time, want)
			}
		}
	})
	t.Run("the correlation id is the Call-ID", func(t *testing.T) {
		for i := range list {
			m := scan(&list[i])
			if got := list[i].CorrelationID; !bytes.Equal(got, m.CallID.Of(list[i].Payload)) {
				t.Fatalf("correlation id = %q in\n%s", got, list[i].Payload)
			}
		}
	})
	t.Run("no event id comes twice", func(t *testing.T) {
		seen := make(map[trace.ID]bool)
		for i := range list {
			if seen[list[i].ID] {
				t.Fatalf("event %d has the id of an earlier one", i)
			}
			seen[list[i].ID] = true
		}
	})
}

func TestTraffic_mixesCalls(t *testing.T) {
	const calls, rounds = 48, 8 * 4
	list := events(t, newTraffic(t, 1, calls), calls*rounds, time.Now())
	byCall := make(map[string][]string)
	var first []string
	for i := range list {
		m := scan(&list[i])
		id := string(m.CallID.Of(list[i].Payload))
		what := fmt.Sprintf("%s%s %s", m.Method.Of(list[i].Payload), m.StatusText.Of(list[i].Payload), m.CSeqMethod.Of(list[i].Payload))
		byCall[id] = append(byCall[id], what)
		if i < 8 {
			first = append(first, what)
		}
	}
	want := []string{"INVITE INVITE", "100 INVITE", "183 INVITE", "180 INVITE", "200 INVITE", "ACK ACK", "BYE BYE", "200 BYE"}
	t.Run("neighbours are different messages", func(t *testing.T) {
		if !slices.Equal(first, want) {
			t.Errorf("first messages = %q, want %q", first, want)
		}
	})
	t.Run("a call has its eight messages in order", func(t *testing.T) {
		whole := 0
		for id, got := range byCall {
			// The first calls have begun before, the last go on after.
			if len(got) < len(want) {
				continue
			}
			whole++
			if !slices.Equal(got, want) {
				t.Errorf("call %s = %q, want %q", id, got, want)
			}
		}
		if min := calls * (rounds/8 - 1); whole < min {
			t.Errorf("%d whole calls, want at least %d", whole, min)
		}
	})
	t.Run("digests and tags of two calls differ", func(t *testing.T) {
		// What repeats would be compressed away, and cost too little.
		seen := make(map[string]string)
		for i := range list {
			m := scan(&list[i])
			id := string(m.CallID.Of(list[i].Payload))
			for _, s := range []sipmsg.Span{m.FromTag, m.ToTag} {
				tag := string(s.Of(list[i].Payload))
				if other, ok := seen[tag]; ok && tag != "" && other != id {
					t.Fatalf("tag %s is in the calls %s and %s", tag, id, other)
				}
				seen[tag] = id
			}
		}
	})
}

func TestTraffic_seedDecides(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	a, b, c := newTraffic(t, 1, 8), newTraffic(t, 1, 8), newTraffic(t, 2, 8)
	for i := range 100 {
		one, same, other := a.Append(nil, at), b.Append(nil, at), c.Append(nil, at)
		if !bytes.Equal(one, same) {
			t.Fatalf("packet %d differs with the same seed", i)
		}
		if bytes.Equal(one, other) {
			t.Fatalf("packet %d is the same with another seed", i)
		}
	}
}

func TestTraffic_Append_doesNotAllocate(t *testing.T) {
	traffic := newTraffic(t, 1, 64)
	buf := make([]byte, 0, 2048)
	at := time.Now()
	for range 64 { // a call's memory is made once
		buf = traffic.Append(buf[:0], at)
	}
	if got := testing.AllocsPerRun(1000, func() { buf = traffic.Append(buf[:0], at) }); got != 0 {
		t.Errorf("allocations = %v, want 0", got)
	}
}

func BenchmarkTraffic(b *testing.B) {
	traffic := newTraffic(b, 1, 4000)
	buf := make([]byte, 0, 2048)
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		buf = traffic.Append(buf[:0], at)
	}
}
