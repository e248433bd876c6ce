package app

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// completionOf reads flags that are known to be right.
func completionOf(t testing.TB, f CompleteFlags) *completion {
	t.Helper()
	c, err := newCompletion(&f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// between is an event from one address to another.
func between(src, dst string) trace.Event {
	return trace.Event{
		Time: time.Unix(1_800_000_000, 0), Type: trace.TypeSIP, Transport: trace.UDP, Payload: []byte("x"),
		Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst),
	}
}

func TestCompletion_direction(t *testing.T) {
	c := completionOf(t, CompleteFlags{LocalNet: []string{"10.1.0.0/16", "192.0.2.1", "198.51.100.1:5060", "[2001:db8::1]:5061", "2001:db8:1::/48"}})
	tests := []struct {
		src, dst string
		want     trace.Direction
	}{
		{"10.1.2.3:5060", "203.0.113.1:5060", trace.Out},
		{"203.0.113.1:5060", "10.1.2.3:5060", trace.In},
		{"192.0.2.1:1", "192.0.2.2:1", trace.Out},
		{"203.0.113.1:1", "198.51.100.1:5060", trace.In},
		{"203.0.113.1:1", "198.51.100.1:5061", trace.DirectionUnknown},
		{"[::ffff:192.0.2.1]:1", "203.0.113.1:1", trace.Out},
		{"[2001:db8::1]:5061", "[2001:db8::2]:5061", trace.Out},
		{"[2001:db8::2]:5061", "[2001:db8:1::2]:5061", trace.In},
		{"10.1.2.3:5060", "192.0.2.1:5060", trace.DirectionUnknown}, // between two of ours
		{"203.0.113.1:1", "203.0.113.2:1", trace.DirectionUnknown},
	}
	for _, tt := range tests {
		e := between(tt.src, tt.dst)
		if c.complete(&e); e.Direction != tt.want {
			t.Errorf("%s → %s is %q, want %q", tt.src, tt.dst, e.Direction, tt.want)
		}
	}
	known := between("10.1.2.3:5060", "203.0.113.1:5060")
	known.Direction = trace.In
	if c.complete(&known); known.Direction != trace.In {
		t.Error("a direction that was known is another now")
	}
	nowhere := trace.Event{Type: trace.TypeSIP}
	if c.complete(&nowhere); nowhere.Direction != trace.DirectionUnknown {
		t.Errorf("without addresses: %q", nowhere.Direction)
	}
}

func TestCompletion_localAddress(t *testing.T) {
	const far, near, given = "203.0.113.1:5060", "10.1.2.3:5060", "198.51.100.9:5064"
	c := completionOf(t, CompleteFlags{LocalIP: "tcp:" + given})
	tests := []struct {
		name      string
		direction trace.Direction
		transport trace.Transport
		src, dst  string
		want      trace.Transport
	}{
		{"out", trace.Out, trace.UDP, given, far, trace.UDP},
		{"in", trace.In, trace.TLS, near, given, trace.TLS},
		{"unknown transport", trace.In, trace.TransportUnknown, near, given, trace.TCP},
		{"unknown direction", trace.DirectionUnknown, trace.UDP, near, far, trace.UDP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := between(near, far)
			e.Direction, e.Transport = tt.direction, tt.transport
			c.complete(&e)
			if e.Src.String() != tt.src || e.Dst.String() != tt.dst || e.Transport != tt.want {
				t.Errorf("%s %v → %v, want %s %s → %s", e.Transport, e.Src, e.Dst, tt.want, tt.src, tt.dst)
			}
		})
	}
	t.Run("where the direction comes of the addresses", func(t *testing.T) {
		c := completionOf(t, CompleteFlags{LocalIP: "udp:" + given, LocalNet: []string{"10.1.0.0/16"}})
		e := between(near, far)
		if c.complete(&e); e.Direction != trace.Out || e.Src.String() != given {
			t.Errorf("%q from %v, want out from %s", e.Direction, e.Src, given)
		}
	})
}

func TestCompletion_switches(t *testing.T) {
	for flags, want := range map[switchedOff]trace.Flags{
		{}:                             0,
		{store: true}:                  trace.NoStore,
		{duplicate: true}:              trace.NoDuplicate,
		{store: true, duplicate: true}: trace.NoStore | trace.NoDuplicate,
	} {
		c := completionOf(t, CompleteFlags{Store: DefaultOn{flags.store}, Duplicate: DefaultOn{flags.duplicate}})
		e := between("192.0.2.1:1", "192.0.2.2:1")
		e.Flags = trace.Truncated
		if c.complete(&e); e.Flags != want|trace.Truncated {
			t.Errorf("%+v: flags %b, want %b more", flags, e.Flags, want)
		}
		if c.idle() != (want == 0) {
			t.Errorf("%+v: idle is %v", flags, c.idle())
		}
	}
}

// switchedOff is which switches are off.
type switchedOff struct{ store, duplicate bool }

func TestCompleteFlags_sayWhatIsWrong(t *testing.T) {
	tests := []struct {
		f    CompleteFlags
		want string
	}{
		{CompleteFlags{LocalIP: "10.1.1.1:5064"}, "udp:10.1.1.1:5064"},
		{CompleteFlags{LocalIP: "udp:10.1.1.1"}, "--local-ip"},
		{CompleteFlags{LocalIP: "udp:proxy:5064"}, "--local-ip"},
		{CompleteFlags{LocalIP: "udp:0.0.0.0:5064"}, "--local-ip"},
		{CompleteFlags{LocalNet: []string{"10.0.0.0/33"}}, "--local-net"},
		{CompleteFlags{LocalNet: []string{"10.0.0.0/8", "proxy"}}, `--local-net "proxy"`},
		{CompleteFlags{Table: "sip trace"}, "--table"},
	}
	for _, tt := range tests {
		if err := tt.f.validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.f, err, tt.want)
		}
	}
	good := CompleteFlags{LocalIP: "udp:[2001:db8::1]:5064", LocalNet: []string{"10.1.1.1/8", "::1"}, Table: "sip_trace_edge"}
	if err := good.validate(); err != nil {
		t.Error(err)
	}
}

func TestDefaultOn_isOnUnlessItIsSaid(t *testing.T) {
	for text, off := range map[string]bool{"true": false, "false": true, "0": true, "1": false} {
		d := DefaultOn{Off: !off}
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Off != off {
			t.Errorf("%q: off is %v, %v", text, d.Off, err)
		}
		if again := d.String(); again != fmt.Sprint(!off) {
			t.Errorf("%q prints %q", text, again)
		}
	}
	if err := new(DefaultOn).UnmarshalText([]byte("maybe")); err == nil {
		t.Error("maybe is no answer, and was taken for one")
	}
}

// sip is an event of a SIP message in one transaction.
func sip(start string, direction trace.Direction, seq int, branch string) trace.Event {
	method := strings.Fields(start)[0]
	if method == "SIP/2.0" {
		method = "INVITE"
	}
	e := between("192.0.2.1:5060", "192.0.2.2:5060")
	e.Direction = direction
	e.Payload = []byte(start + "\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=" + branch + "\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag=2\r\n" +
		"Call-ID: call@x\r\nCSeq: " + fmt.Sprint(seq) + " " + method + "\r\n\r\n")
	return e
}

func TestLocalAcks_leaveOutAnswersToTheServersOwnRefusals(t *testing.T) {
	const (
		invite, ack = "INVITE sip:b@x SIP/2.0", "ACK sip:b@x SIP/2.0"
		no, yes     = "SIP/2.0 404 Not Found", "SIP/2.0 200 OK"
		in, out     = trace.In, trace.Out
	)
	type step struct {
		start     string
		direction trace.Direction
		seq       int
		branch    string
		left      bool
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"refused by the server", []step{{invite, in, 1, "b", false}, {no, out, 1, "b", false}, {ack, in, 1, "b", true}, {ack, in, 1, "b", true}}},
		{"refused before the INVITE was seen", []step{{no, out, 1, "b", false}, {ack, in, 1, "b", true}}},
		{"refused by the next server", []step{{invite, in, 1, "b", false}, {invite, out, 1, "p", false}, {no, in, 1, "p", false},
			{ack, out, 1, "p", false}, {no, out, 1, "b", false}, {ack, in, 1, "b", false}}},
		{"accepted", []step{{invite, in, 1, "b", false}, {yes, out, 1, "b", false}, {ack, in, 1, "c", false}}},
		{"another transaction of the call", []step{{no, out, 1, "b", false}, {ack, in, 2, "b", false}, {ack, in, 1, "c", false}}},
		{"an ACK before the refusal", []step{{ack, in, 1, "b", false}, {no, out, 1, "b", false}}},
		{"an ACK that goes out", []step{{no, out, 1, "b", false}, {ack, out, 1, "b", false}}},
		{"a refusal that comes in", []step{{no, in, 1, "b", false}, {ack, in, 1, "b", false}}},
		{"no direction", []step{{no, trace.DirectionUnknown, 1, "b", false}, {ack, trace.DirectionUnknown, 1, "b", false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := completionOf(t, CompleteFlags{SLAcks: DefaultOn{Off: true}})
			for i, s := range tt.steps {
				e := sip(s.start, s.direction, s.seq, s.branch)
				if left := !c.complete(&e); left != s.left {
					t.Errorf("step %d, %s: left out %v, want %v", i, s.start, left, s.left)
				}
			}
		})
	}
	t.Run("all of them by default", func(t *testing.T) {
		c := completionOf(t, CompleteFlags{})
		for _, s := range tests[0].steps {
			if e := sip(s.start, s.direction, s.seq, s.branch); !c.complete(&e) {
				t.Errorf("%s is left out", s.start)
			}
		}
	})
	t.Run("for a while", func(t *testing.T) {
		l := newLocalAcks()
		e := sip(no, out, 1, "b")
		l.toOwnReply(&e)
		e = sip(ack, in, 1, "b")
		e.Time = e.Time.Add((ackTime + 1) * time.Second)
		if l.toOwnReply(&e) {
			t.Error("an ACK long after is left out")
		}
	})
	t.Run("whatever the bytes are", func(t *testing.T) {
		l := newLocalAcks()
		for _, payload := range []string{"", "\r\n", "ACK", "ACK sip:b@x SIP/2.0\r\n\r\n", "\x00\xff", "ACK sip:b@x SIP/2.0\r\nCall-ID: \r\nCSeq: 1 ACK\r\n\r\n"} {
			e := sip(ack, in, 1, "b")
			e.Payload = []byte(payload)
			if l.toOwnReply(&e) {
				t.Errorf("%q is left out", payload)
			}
		}
	})
}

func TestCompleting_handsOnWhatIsNotLeftOut(t *testing.T) {
	var got []trace.Event
	reg := prometheus.NewRegistry()
	sink, err := newCompleting(completionOf(t, CompleteFlags{SLAcks: DefaultOn{Off: true}, Store: DefaultOn{Off: true}}),
		trace.SinkFunc(func(_ context.Context, e []trace.Event) error {
			got = append(got, e...)
			return nil
		}), reg, "test")
	if err != nil {
		t.Fatal(err)
	}
	given := []trace.Event{
		sip("SIP/2.0 404 Not Found", trace.Out, 1, "b"), sip("ACK sip:b@x SIP/2.0", trace.In, 1, "b"), sip("BYE sip:b@x SIP/2.0", trace.In, 2, "c"),
	}
	if err := sink.Write(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	if err := sink.Write(t.Context(), given[1:2]); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !strings.HasPrefix(string(got[1].Payload), "BYE") || got[0].Flags != trace.NoStore {
		t.Errorf("handed on %d events: %+v", len(got), got)
	}
	if given[0].Flags != 0 {
		t.Error("the caller's event was changed")
	}
	if n := testutil.ToFloat64(sink.(*completing).left); n != 2 {
		t.Errorf("%v counted as left out, want 2", n)
	}
}

func TestCompleting_isNotThereWhenThereIsNothingToDo(t *testing.T) {
	var out trace.Sink = &departure{}
	sink, err := newCompleting(completionOf(t, CompleteFlags{Table: "edge"}), out, prometheus.NewRegistry(), "test")
	if err != nil || sink != out {
		t.Errorf("got %v, %v, want the sink itself", sink, err)
	}
}

func TestCompleting_doesNotAllocate(t *testing.T) {
	sink, err := newCompleting(completionOf(t, CompleteFlags{
		SLAcks: DefaultOn{Off: true}, LocalIP: "udp:198.51.100.1:5060", LocalNet: []string{"192.0.2.1"},
	}), trace.SinkFunc(func(context.Context, []trace.Event) error { return nil }), prometheus.NewRegistry(), "test")
	if err != nil {
		t.Fatal(err)
	}
	events := []trace.Event{
		sip("SIP/2.0 404 Not Found", trace.Out, 1, "b"), sip("ACK sip:b@x SIP/2.0", trace.In, 1, "b"), sip("INVITE sip:b@x SIP/2.0", trace.DirectionUnknown, 1, "b"),
	}
	if n := testing.AllocsPerRun(100, func() { _ = sink.Write(t.Context(), events) }); n != 0 {
		t.Errorf("%v allocations for 3 events, want none", n)
	}
}

func BenchmarkCompletion(b *testing.B) {
	for name, f := range map[string]CompleteFlags{
		"addresses": {LocalIP: "udp:198.51.100.1:5060", LocalNet: []string{"192.0.2.1"}},
		"sl-acks":   {SLAcks: DefaultOn{Off: true}, LocalNet: []string{"192.0.2.1"}},
	} {
		b.Run(name, func(b *testing.B) {
			c := completionOf(b, f)
			e := sip("INVITE sip:b@x SIP/2.0", trace.DirectionUnknown, 1, "b")
			b.ReportAllocs()
			for b.Loop() {
				twin := e
				c.complete(&twin)
			}
		})
	}
}
