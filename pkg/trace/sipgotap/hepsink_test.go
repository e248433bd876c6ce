package sipgotap

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// events are n events as a tap makes them.
func events(n int) []trace.Event {
	list := make([]trace.Event, n)
	for i := range list {
		list[i] = trace.Event{
			Time: time.Unix(1_700_000_000, int64(i)*1000), Agent: trace.Agent{ID: 7, Name: "edge1"}, Transport: trace.WSS,
			Src: there, Dst: here, Direction: trace.In, Type: trace.TypeSIP, Payload: request("OPTIONS", "a", i, 0),
			TracedUsers: []string{"alice"}, Table: "t",
		}
		list[i].Identify()
	}
	return list
}

// text is events as text, to be compared.
func text(events []trace.Event) string { return fmt.Sprint(events) }

// fromPackets decodes packets as the bus does.
func fromPackets(t *testing.T, packets ...[]byte) []trace.Event {
	t.Helper()
	var d trace.FrameDecoder
	d.Reset()
	var list []trace.Event
	for _, b := range packets {
		got, err := d.Append(b)
		if err != nil {
			t.Fatal(err)
		}
		list = got
	}
	return list
}

func TestHEPSink_overUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := NewHEPSink("hep+udp://" + c.LocalAddr().String() + "?auth=secret")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	want := events(10)
	if err := s.Write(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	var packets [][]byte
	for range want {
		b := make([]byte, 65535)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b[:n])
		p, err := hep.Decode(b[:n])
		if err != nil || string(p.AuthKey) != "secret" {
			t.Fatalf("auth key %q, %v; want secret", p.AuthKey, err)
		}
	}
	if got := fromPackets(t, packets...); text(got) != text(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestHEPSink_overTCPConnectsAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, err := NewHEPSink("hep+tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	want := events(200)
	for range 3 {
		sent := make(chan error, 1)
		go func() { sent <- s.Write(t.Context(), want) }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		r := hep.NewReader(c)
		var packets [][]byte
		for range want {
			b, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			packets = append(packets, slices.Clone(b))
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if got := fromPackets(t, packets...); text(got) != text(want) {
			t.Errorf("%d events are not the %d that were sent", len(got), len(want))
		}
		done := s.conn.done
		_ = c.Close()
		<-done // the sink has noticed, and the next Write fails or connects again
		if err := s.Write(t.Context(), want[:1]); err == nil {
			t.Fatal("a Write to a collector that has gone reports no error")
		}
	}
}

func TestHEPSink_reportsWhoIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s, err := NewHEPSink("hep+tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), events(1)); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error = %v, want one that names %v", err, l.Addr())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestHEPSink_aPeerThatReadsNothingEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, err := NewHEPSink("hep+tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for err == nil { // until the kernel takes no more
		err = s.Write(ctx, events(1000))
	}
	if ctx.Err() == nil {
		t.Errorf("error = %v, before the context ended", err)
	}
}

func TestHEPSink_rejectsWhatCannotBeSent(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := NewHEPSink("hep+udp://" + c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	list := events(4)
	list[1].Time = time.Unix(-1, 0)
	list[2].Payload = nil
	bare, err := trace.AppendEvent(nil, &list[2])
	if err != nil {
		t.Fatal(err)
	}
	list[2].Payload = make([]byte, hep.MaxSize-len(bare)-20) // HEP can carry it, a datagram cannot
	err = s.Write(t.Context(), list)
	rejected, ok := err.(trace.Rejected)
	if !ok || len(rejected) != 2 || rejected[0].Index != 1 || rejected[1].Index != 2 {
		t.Errorf("error = %v, want events 1 and 2 rejected", err)
	}
}

func TestNewHEPSink_errors(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:9060", "udp://127.0.0.1:9060", "hep+tls://127.0.0.1", "hep+udp://", "hep+udp://:9060", "hep+udp://u@h:1", "hep+udp://h/path",
		"hep+udp://h?secret=x", "hep+udp://h?auth=x&auth=y", "hep+udp://h:port",
	} {
		if s, err := NewHEPSink(address); err == nil {
			t.Errorf("NewHEPSink(%q) = %+v, want an error", address, s)
		}
	}
	s, err := NewHEPSink("hep+udp://[::1]")
	if err != nil || s.addr != "[::1]:9060" {
		t.Errorf("address %v, %v; want port 9060", s, err)
	}
}
