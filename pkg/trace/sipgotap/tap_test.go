package sipgotap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestTap_eventsSayWhatWasSeen(t *testing.T) {
	tap := New(Options{Agent: trace.Agent{ID: 7, Name: "edge1"}})
	invite := request("INVITE", "a", 1, 10)
	ok := response(invite, "200 OK")
	before := time.Now().Truncate(time.Microsecond)
	in(tap, invite)
	out(tap, ok)
	got := drain(t, tap)
	if len(got) != 2 {
		t.Fatalf("%d events, want 2", len(got))
	}
	for i, want := range []trace.Event{
		{Direction: trace.In, Src: there, Dst: here, Payload: invite},
		{Direction: trace.Out, Src: here, Dst: there, Payload: ok},
	} {
		e := got[i]
		if e.Direction != want.Direction || e.Src != want.Src || e.Dst != want.Dst || !bytes.Equal(e.Payload, want.Payload) {
			t.Errorf("event %d: %v %v → %v %q", i, e.Direction, e.Src, e.Dst, e.Payload)
		}
		if e.Agent != (trace.Agent{ID: 7, Name: "edge1"}) || e.Type != trace.TypeSIP || e.Transport != trace.UDP || e.ID.IsZero() {
			t.Errorf("event %d: agent %v, type %d, transport %v, id %v", i, e.Agent, e.Type, e.Transport, e.ID)
		}
		if e.Time.Before(before) || e.Time.After(time.Now()) {
			t.Errorf("event %d: time %v, want now", i, e.Time)
		}
	}
}

func TestTap_keepAlivesAreNoMessages(t *testing.T) {
	tap := New(Options{})
	stun := make([]byte, 20)
	copy(stun, []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
	for _, ping := range []string{"\r\n\r\n", "\r\n", "\x00\x00\x00\x00", string(stun)} {
		in(tap, []byte(ping))
	}
	in(tap, []byte("this is no SIP, and somebody may want to know"))
	if got := drain(t, tap); len(got) != 1 {
		t.Errorf("%d events, want only what is no keep-alive", len(got))
	}
	if s := tap.Stats(); s.KeepAlives != 4 || s.Seen != 1 {
		t.Errorf("%d keep-alives and %d messages, want 4 and 1", s.KeepAlives, s.Seen)
	}
}

func TestTap_neverWaitsForItsSink(t *testing.T) {
	tap := New(Options{Buffer: minBuffer, Settle: -1, Flush: 500 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- tap.Run(ctx, trace.SinkFunc(func(ctx context.Context, _ []trace.Event) error {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-ctx.Done() // for ever
			return ctx.Err()
		}))
	}()
	const each, senders = 2000, 4
	var group sync.WaitGroup
	for i := range senders {
		group.Go(func() {
			for n := range each {
				in(tap, request("OPTIONS", fmt.Sprint(i), n, 300))
			}
		})
	}
	group.Wait() // it ends, though nobody takes anything
	<-entered
	s := tap.Stats()
	if s.Seen != each*senders || s.Dropped == 0 || s.Waiting+s.Dropped != s.Seen {
		t.Errorf("seen %d, waiting %d, dropped %d; want %d seen, some dropped, and the rest waiting", s.Seen, s.Waiting, s.Dropped, each*senders)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := uint64(len(drain(t, tap))); got != s.Waiting {
		t.Errorf("%d events were kept, want the %d that waited", got, s.Waiting)
	}
	if s := tap.Stats(); s.Written+s.Dropped != s.Seen || s.Waiting != 0 {
		t.Errorf("in the end: %+v; want written and dropped to be all that was seen", s)
	}
}

func TestTap_deliversAgainWhatTheSinkDidNotTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var got collector
		refusals := 3
		done := make(chan error, 1)
		go func() {
			done <- tap.Run(ctx, trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
				if refusals--; refusals >= 0 {
					return errors.New("away")
				}
				return got.Write(ctx, events)
			}))
		}()
		for i := range 1000 {
			in(tap, request("OPTIONS", "a", i, 0))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(got.all()); n != 1000 {
			t.Errorf("%d events, want 1000, each once", n)
		}
		if s := tap.Stats(); s.Written != 1000 || s.Waiting != 0 {
			t.Errorf("%+v, want all 1000 written", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTap_aRefusedEventTakesNoOthersWithIt(t *testing.T) {
	bad := func(e *trace.Event) bool { return bytes.Contains(e.Payload, []byte("CSeq: 5 ")) }
	byList := func(events []trace.Event) error {
		var r trace.Rejected
		for i := range events {
			if bad(&events[i]) {
				r = append(r, trace.Rejection{Index: i, Reason: "bad"})
			}
		}
		if r == nil {
			return nil
		}
		return r
	}
	whole := func(events []trace.Event) error {
		if slices.ContainsFunc(events, func(e trace.Event) bool { return bad(&e) }) {
			return fmt.Errorf("bad: %w", trace.ErrPermanent)
		}
		return nil
	}
	for name, write := range map[string]func([]trace.Event) error{"listed": byList, "the whole batch": whole} {
		t.Run(name, func(t *testing.T) {
			tap := New(Options{})
			for i := range 10 {
				in(tap, request("OPTIONS", "a", i, 0))
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := tap.Run(ctx, trace.SinkFunc(func(_ context.Context, events []trace.Event) error { return write(events) }))
			if err != nil {
				t.Fatal(err)
			}
			if s := tap.Stats(); s.Written != 9 || s.Refused != 1 || s.Waiting != 0 {
				t.Errorf("%+v, want 9 written and 1 refused", s)
			}
		})
	}
}

func TestTap_runsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tap.Run(ctx, new(collector)) }()
		synctest.Wait()
		if err := tap.Run(ctx, new(collector)); !errors.Is(err, ErrRunning) {
			t.Errorf("second Run: error = %v, want ErrRunning", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTap_messagesSettleBeforeTheyGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tap := New(Options{Settle: 300 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		var got collector
		done := make(chan error, 1)
		go func() { done <- tap.Run(ctx, &got) }()
		in(tap, request("INVITE", "a", 1, 0))
		time.Sleep(299 * time.Millisecond)
		synctest.Wait()
		if n := len(got.all()); n != 0 {
			t.Errorf("%d events before the time, want 0", n)
		}
		tap.MessageBytes(request("INVITE", "a", 1, 0), Mark{Users: []string{"alice"}})
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if e := got.all(); len(e) != 1 || !slices.Equal(e[0].TracedUsers, []string{"alice"}) {
			t.Errorf("%d events, want 1, of alice", len(e))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTap_logIsAnEventOfTheCall(t *testing.T) {
	tap := New(Options{Selective: true})
	in(tap, request("INVITE", "call-1", 1, 0))
	tap.MessageBytes(request("INVITE", "call-1", 1, 0), Mark{Scope: Dialog, Table: "calls"})
	tap.Log("call-1", "no route to bob")
	got := drain(t, tap)
	if len(got) != 2 {
		t.Fatalf("%d events, want the message and the line", len(got))
	}
	e := got[1]
	if e.Type != trace.TypeLog || string(e.CorrelationID) != "call-1" || string(e.Payload) != "no route to bob" || e.Table != "calls" {
		t.Errorf("type %d, correlation id %q, payload %q, table %q", e.Type, e.CorrelationID, e.Payload, e.Table)
	}
	if e.Src != here || e.Dst != here {
		t.Errorf("from %v to %v, want this side of the call, %v", e.Src, e.Dst, here)
	}
}

func TestTap_tracesEventsOfTheProgramsOwn(t *testing.T) {
	tap := New(Options{Selective: true, Agent: trace.Agent{Name: "edge1"}})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	want := trace.Event{
		Time: at, Transport: trace.SCTP, Src: there, Dst: here, Direction: trace.In, Type: 5,
		CorrelationID: []byte("c"), Payload: []byte("{}"), Table: "t", TracedUsers: []string{"u"}, Destinations: []string{"sip:x"}, Flags: trace.UsersOnly,
	}
	tap.Trace(want)
	got := drain(t, tap)
	if len(got) != 1 {
		t.Fatalf("%d events, want 1", len(got))
	}
	want.Agent = trace.Agent{Name: "edge1"}
	want.Identify()
	if fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got[0], want)
	}
}

func TestTap_wildcardsGetTheAddressOfTheRoute(t *testing.T) {
	tap := New(Options{})
	any4 := netip.MustParseAddrPort("0.0.0.0:5060")
	peer := netip.MustParseAddrPort("127.0.0.1:5070")
	for _, way := range []trace.Direction{trace.In, trace.Out} {
		tap.datagram(time.Now(), &leg{tap.udp, any4, peer, way}, request("INVITE", "a", 1, 0), false)
	}
	want := netip.MustParseAddrPort("127.0.0.1:5060")
	got := drain(t, tap)
	if len(got) != 2 || got[0].Dst != want || got[1].Src != want {
		t.Errorf("to %v, from %v; want %v", got[0].Dst, got[1].Src, want)
	}
}

func TestTap_keepsMessagesAsTheyWere(t *testing.T) {
	tap := New(Options{Buffer: minBuffer, Settle: -1})
	r := rand.New(rand.NewPCG(3, 4))
	var want [][]byte
	var got []trace.Event
	for i := range 8_000 { // the buffer goes round many times
		m := request("MESSAGE", fmt.Sprint(i), i, r.IntN(3000))
		in(tap, m)
		want = append(want, m)
		if r.IntN(100) == 0 {
			got = append(got, drain(t, tap)...)
		}
	}
	got = append(got, drain(t, tap)...)
	if s := tap.Stats(); s.Dropped != 0 {
		t.Fatalf("%d dropped, want 0", s.Dropped)
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Payload, want[i]) {
			t.Fatalf("event %d is %q, want %q", i, got[i].Payload, want[i])
		}
	}
}

func TestTap_countsAddUpWhateverHappensAtOnce(t *testing.T) {
	tap := New(Options{Buffer: minBuffer, Settle: time.Millisecond, Selective: true})
	ctx, cancel := context.WithCancel(t.Context())
	var got collector
	done := make(chan error, 1)
	go func() { done <- tap.Run(ctx, &got) }()
	const each = 3000
	var group sync.WaitGroup
	for i := range 3 {
		group.Go(func() {
			stream := newFlow(tap, leg{knownTransport(trace.TCP), here, there, trace.In})
			for n := range each {
				b := request("INVITE", fmt.Sprintf("%d-%d", i, n%100), n, 100)
				in(tap, b)
				stream.saw(time.Now(), b[:50])
				stream.saw(time.Now(), b[50:])
				if n%3 == 0 {
					tap.MessageBytes(b, Mark{Scope: Scope(n / 3 % 3), Users: []string{"alice"}})
				}
				if n%10 == 0 {
					tap.Log("a", "here")
				}
				if s := tap.Stats(); s.Seen != s.Dropped+s.Unmarked+s.Written+s.Refused+s.Waiting {
					t.Errorf("%+v do not add up", s)
				}
			}
		})
	}
	group.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s := tap.Stats()
	if want := uint64(3 * each * 21 / 10); s.Seen != want || s.Waiting != 0 || s.Written != uint64(len(got.all())) || s.Written == 0 {
		t.Errorf("%+v and %d events, want %d seen", s, len(got.all()), want)
	}
}

func TestTap_seeingCostsNoAllocation(t *testing.T) {
	invite := request("INVITE", "a", 1, 500)
	tap := New(Options{Selective: true, Settle: -1})
	tap.MessageBytes(invite, Mark{Scope: Dialog, Users: []string{"alice"}})
	stream := newFlow(tap, leg{knownTransport(trace.TCP), here, there, trace.In})
	see := func() {
		in(tap, invite)
		stream.saw(time.Now(), invite)
	}
	for range 4000 {
		see()
	}
	if got := testing.AllocsPerRun(1000, see); got != 0 {
		t.Errorf("%v allocations for two messages, want 0", got)
	}
	unmarked := New(Options{Buffer: minBuffer})
	for range 4000 { // it is full, and nobody has marked anything
		in(unmarked, invite)
	}
	if got := testing.AllocsPerRun(1000, func() { in(unmarked, invite) }); got != 0 {
		t.Errorf("%v allocations for a message, want 0", got)
	}
}

func BenchmarkTap(b *testing.B) {
	invite := request("INVITE", "a", 1, 500)
	for _, marked := range []bool{false, true} {
		b.Run(fmt.Sprint("marked ", marked), func(b *testing.B) {
			tap := New(Options{Settle: -1})
			if marked {
				tap.MessageBytes(invite, Mark{Scope: Dialog, Users: []string{"alice"}})
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() {
				done <- tap.Run(ctx, trace.SinkFunc(func(context.Context, []trace.Event) error { return nil }))
			}()
			b.ReportAllocs()
			for b.Loop() {
				in(tap, invite)
			}
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
	b.Run("full", func(b *testing.B) {
		tap := New(Options{Buffer: minBuffer})
		b.ReportAllocs()
		for b.Loop() {
			in(tap, invite)
		}
	})
}
