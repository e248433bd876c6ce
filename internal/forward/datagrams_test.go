package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestUDP_sendsEveryEventInOrder(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	events := invites(socketful)
	deliver(t, s, events)
	size := 0
	for i, p := range c.take(t, len(events)) {
		if string(p.Payload) != string(events[i].Payload) {
			t.Fatalf("packet %d has payload %q, want %q", i, p.Payload, events[i].Payload)
		}
		size += p.Size()
	}
	name := s.d.Name()
	if got := metric(t, s.reg, "events_sent_total", name); got != socketful {
		t.Errorf("events_sent_total = %v, want %d", got, socketful)
	}
	if got := metric(t, s.reg, "bytes_sent_total", name); got != float64(size) {
		t.Errorf("bytes_sent_total = %v, want %d", got, size)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
}

func TestUDP_keepsWhatTheEventSays(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	e := invite(1)
	e.CorrelationID = []byte("leg-1")
	e.Type = trace.TypeLog
	e.Transport = trace.TLS
	e.VLAN = 7
	e.Chunks = hep.AppendChunk(hep.AppendChunk(nil, 8, 0x80, []byte("conversation")), 0, 0x20, []byte{1, 185})
	deliver(t, s, []trace.Event{e})
	p := c.take(t, 1)[0]
	if at, _ := p.Time(); !at.Equal(e.Time) {
		t.Errorf("time = %v, want %v", at, e.Time)
	}
	got := fmt.Sprintf("%d %d %s:%d %s:%d %d %q %q %q %d %q", p.Protocol, p.Type, p.Src, p.SrcPort, p.Dst, p.DstPort,
		p.CaptureID, p.Node, p.CorrelationID, p.AuthKey, p.VLAN, p.Extra)
	want := fmt.Sprintf("%d %d %s %s %d %q %q %q %d %q", 22, 100, e.Src, e.Dst, 2001, "edge-1", "leg-1", "", 7, e.Chunks)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUDP_writesWhatTheDestinationSaysInPlaceOfTheEvents(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr()+"?capture-id=0&auth=key&node=central", Options{})
	deliver(t, s, invites(1))
	p := c.take(t, 1)[0]
	if p.CaptureID != 0 || string(p.AuthKey) != "key" || string(p.Node) != "central" {
		t.Errorf("capture id %d, key %q, node %q, want 0, key, central", p.CaptureID, p.AuthKey, p.Node)
	}
}

func TestUDP_writesProtocolAndTypeThoughTheyAreNought(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	deliver(t, s, []trace.Event{{Time: time.Unix(1, 0)}})
	p := c.take(t, 1)[0]
	if !p.Has(hep.FieldProtocol|hep.FieldType|hep.FieldPayload) || p.Protocol != 17 {
		t.Errorf("packet %+v, want chunks 0x02, 0x0b and 0x0f", p)
	}
}

func TestUDP_oldVersions(t *testing.T) {
	six := netip.MustParseAddrPort("[2001:db8::1]:5060")
	tests := []struct {
		name    string
		options string
		change  func(e *trace.Event)
		reason  string // of a rejection
		id      uint32
	}{
		{"version 2 keeps 16 bits of the capture id", "?version=2", func(e *trace.Event) { e.Agent.ID = 0x12345 }, "", 0x2345},
		{"version 2 keeps 16 bits of the destination's", "?version=2&capture-id=70000", func(*trace.Event) {}, "", 70000 & 0xffff},
		{"version 2 leaves out what it has no room for", "?version=2", func(e *trace.Event) {
			e.CorrelationID = []byte("x")
			e.Chunks = hep.AppendChunk(nil, 8, 0x80, []byte("x"))
		}, "", 2001},
		{"version 2 does IPv6", "?version=2", func(e *trace.Event) { e.Src, e.Dst = six, six }, "", 2001},
		{"version 2 does IPv4 in IPv6", "?version=2", func(e *trace.Event) { e.Src = netip.MustParseAddrPort("[::ffff:192.0.2.1]:5060") }, "", 2001},
		{"version 1 has no capture id", "?version=1", func(*trace.Event) {}, "", 0},
		{"version 1 refuses mixed families", "?version=1", func(e *trace.Event) { e.Dst = six }, "mixed address families", 0},
		{"version 2 refuses mixed families", "?version=2", func(e *trace.Event) { e.Src = six }, "mixed address families", 0},
		{"version 2 refuses no address", "?version=2", func(e *trace.Event) { e.Src = netip.AddrPort{} }, "no addresses", 0},
		{"version 3 writes both as IPv6", "?version=3", func(e *trace.Event) { e.Dst = six }, "", 2001},
		{"a time before 1970", "", func(e *trace.Event) { e.Time = time.Time{} }, "time out of range", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := listenUDP(t, "127.0.0.1:0")
			s := openSink(t, "hep+udp://"+c.addr()+tt.options, Options{})
			events := invites(3)
			tt.change(&events[1])
			err := s.Write(t.Context(), events)
			if tt.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				got := c.take(t, 3)[1]
				if got.CaptureID != tt.id || !bytes.Equal(got.Payload, events[1].Payload) {
					t.Errorf("capture id %d, payload %q, want %d and %q", got.CaptureID, got.Payload, tt.id, events[1].Payload)
				}
				return
			}
			no := rejections(t, err)
			if len(no) != 1 || no[0].Index != 1 || no[0].Reason != tt.reason {
				t.Errorf("rejected %+v, want event 1 for %q", no, tt.reason)
			}
			if got := metric(t, s.reg, "events_rejected_total", tt.reason); got != 1 {
				t.Errorf("events_rejected_total = %v, want 1", got)
			}
			c.take(t, 2) // its neighbours
		})
	}
}

func TestUDP_skipsWhatIsNotForIt(t *testing.T) {
	tests := []struct {
		name, uri, reason string
		o                 Options
		change            func(e *trace.Event)
	}{
		{"flagged", "hep+udp://", "no duplicate", Options{}, func(e *trace.Event) { e.Flags = trace.NoDuplicate | trace.NoStore }},
		{"addressed", "hep+udp://", "addressed", Options{SkipAddressed: true}, func(e *trace.Event) { e.Destinations = []string{"sip:127.0.0.1"} }},
		{"a log in plain SIP", "sip+udp://", "not sip", Options{}, func(e *trace.Event) { e.Type = trace.TypeLog }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := listenUDP(t, "127.0.0.1:0")
			s := openSink(t, tt.uri+c.addr(), tt.o)
			events := invites(3)
			tt.change(&events[1])
			deliver(t, s, events)
			for _, i := range []int{0, 2} {
				if got := c.next(t).b; !bytes.HasSuffix(got, events[i].Payload) {
					t.Errorf("got %q, want event %d", got, i)
				}
			}
			if got := metric(t, s.reg, "events_skipped_total", s.d.Name(), tt.reason); got != 1 {
				t.Errorf("events_skipped_total{%s} = %v, want 1", tt.reason, got)
			}
			if got := metric(t, s.reg, "events_sent_total"); got != 2 {
				t.Errorf("events_sent_total = %v, want 2", got)
			}
		})
	}
}

func TestUDP_sendsAddressedEventsUnlessToldToSkipThem(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	e := invite(1)
	e.Destinations = []string{"sip:127.0.0.1"}
	deliver(t, s, []trace.Event{e})
	c.take(t, 1)
}

// large makes an event whose version 3 packet has size bytes.
func large(t testing.TB, n, size int) trace.Event {
	t.Helper()
	e := invite(n)
	var p hep.Packet
	if err := trace.ToHEP(&p, &e); err != nil {
		t.Fatal(err)
	}
	e.Payload = append(e.Payload, strings.Repeat("x", size-p.Size())...)
	e.Identify()
	return e
}

func TestUDP_rejectsWhatIsTooLongAndNotItsNeighbours(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	events := invites(6)
	events[1] = large(t, 1, 65507) // the largest datagram
	events[2] = large(t, 2, 65508) // one more
	events[4] = large(t, 4, hep.MaxSize+1)
	no := rejections(t, s.Write(t.Context(), events))
	if len(no) != 2 {
		t.Fatalf("rejected %+v, want 2", no)
	}
	for _, r := range no {
		want := map[int]string{2: "too long for udp", 4: "too long for hep"}[r.Index]
		if r.Reason != want {
			t.Errorf("event %d rejected for %q, want %q", r.Index, r.Reason, want)
		}
	}
	got := c.take(t, 4)
	for i, want := range []int{0, 1, 3, 5} {
		if !bytes.Equal(got[i].Payload, events[want].Payload) {
			t.Errorf("datagram %d is not event %d", i, want)
		}
	}
}

func TestUDP_fallsBackForWhatIsTooLong(t *testing.T) {
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("named by the destination: %t", own), func(t *testing.T) {
			c := listenUDP(t, "127.0.0.1:0")
			big := listenTCP(t, "127.0.0.1:0", nil, readAll)
			uri, o := "hep+udp://"+c.addr(), Options{}
			if own {
				uri += "?fallback=hep+tcp://" + big.addr()
			} else {
				d := parse(t, "hep+tcp://"+big.addr())
				o.Fallback = &d
			}
			s := openSink(t, uri, o)
			events := invites(4)
			events[1] = large(t, 1, 65510)
			events[2] = large(t, 2, hep.MaxSize+1)
			no := rejections(t, s.Write(t.Context(), events))
			if len(no) != 1 || no[0].Index != 2 || no[0].Reason != "too long for hep" {
				t.Errorf("rejected %+v, want event 2 only", no)
			}
			c.take(t, 2)
			eventually(t, "the fallback has the long event", func() bool { return big.payloads()[string(events[1].Payload)] == 1 })
			if got := metric(t, s.reg, "events_fallback_total", s.d.Name()); got != 1 {
				t.Errorf("events_fallback_total = %v, want 1", got)
			}
		})
	}
}

func TestUDP_failsWhileTheFallbackIsAway(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr()+"?fallback=hep+tcp://"+closedPort(t, "tcp"), Options{})
	err := s.Write(t.Context(), []trace.Event{large(t, 1, 65510)})
	if err == nil || errors.Is(err, trace.ErrPermanent) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Write error = %v, want connection refused, to be tried again", err)
	}
}

func TestUDP_holdsBackWhileNobodyListens(t *testing.T) {
	addr := closedPort(t, "udp")
	s := openSink(t, "hep+udp://"+addr, Options{})
	events := invites(socketful)
	for range 3 {
		err := s.Write(t.Context(), events)
		if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, trace.ErrPermanent) {
			t.Fatalf("Write error = %v, want connection refused, to be tried again", err)
		}
	}
	want := "waiting for collector " + addr + ": connection refused"
	if err := s.Check(t.Context()); err == nil || err.Error() != want {
		t.Errorf("Check() = %v, want %s", err, want)
	}
	c := listenUDP(t, addr)
	deliver(t, s, events)
	for i, p := range c.take(t, len(events)) {
		if !bytes.Equal(p.Payload, events[i].Payload) {
			t.Fatalf("packet %d is not event %d", i, i)
		}
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
	if got := metric(t, s.reg, "errors_total", "refused"); got < 3 {
		t.Errorf("errors_total{refused} = %v, want 3 or more", got)
	}
}

func TestUDP_sendsOnWhenRefusalsAreIgnored(t *testing.T) {
	s := openSink(t, "sip+udp://"+closedPort(t, "udp")+"?refused=ignore", Options{})
	for range 3 {
		if err := s.Write(t.Context(), invites(200)); err != nil {
			t.Fatal(err)
		}
	}
	if got := metric(t, s.reg, "events_sent_total"); got != 600 {
		t.Errorf("events_sent_total = %v, want 600", got)
	}
	if got := metric(t, s.reg, "errors_total", "refused"); got < 1 {
		t.Errorf("errors_total{refused} = %v, want them counted", got)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
}

func TestUDP_sendsFromTheAddressGiven(t *testing.T) {
	from := closedPort(t, "udp")
	from = "127.0.0.9" + from[strings.LastIndexByte(from, ':'):]
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr()+"?from=udp:"+from, Options{})
	deliver(t, s, invites(1))
	if got := c.next(t).from.String(); got != from {
		t.Errorf("sent from %s, want %s", got, from)
	}
}

func TestUDP_sendsToSeveralDestinationsFromOnePort(t *testing.T) {
	from := closedPort(t, "udp")
	for range 2 {
		c := listenUDP(t, "127.0.0.1:0")
		s := openSink(t, "hep+udp://"+c.addr()+"?from=udp:"+from, Options{})
		deliver(t, s, invites(1))
		if got := c.next(t).from.String(); got != from {
			t.Errorf("sent from %s, want %s", got, from)
		}
	}
}

func TestUDP_losesNothingWhenTheCollectorRestarts(t *testing.T) {
	first := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+first.addr(), Options{})
	events := invites(100 + socketful)
	deliver(t, s, events[:100])
	first.take(t, 100)
	_ = first.conn.Close()
	for range 2 {
		if err := s.Write(t.Context(), events[100:]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("Write error = %v, want connection refused", err)
		}
	}
	second := listenUDP(t, first.addr())
	deliver(t, s, events[100:])
	for i, p := range second.take(t, socketful) {
		if !bytes.Equal(p.Payload, events[100+i].Payload) {
			t.Fatalf("packet %d is not event %d", i, 100+i)
		}
	}
}

func TestUDP_speaksIPv6(t *testing.T) {
	c := listenUDP(t, "[::1]:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	events := invites(70)
	deliver(t, s, events)
	c.take(t, len(events))
}

func TestUDP_writesNothingOnceClosed(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	deliver(t, s, invites(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), invites(1)); !errors.Is(err, errClosed) || errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write error = %v, want %v", err, errClosed)
	}
}

func TestUDP_waitsForItsTurnWithinTheContext(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{})
	busy := s.Sink.(*datagrams).turn
	busy <- struct{}{}
	defer busy.give()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Write(ctx, invites(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Write error = %v, want %v", err, context.Canceled)
	}
}
