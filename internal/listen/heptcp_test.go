package listen

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"go.uber.org/goleak"
)

// listenTCP opens a TCP source on the loopback, with a log.
func listenTCP(t testing.TB, o HEPOptions) (*HEPTCP, *words) {
	t.Helper()
	log := new(words)
	s, err := ListenHEPTCP("127.0.0.1:0", o, prometheus.NewRegistry(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, log
}

// closed waits until the other end has closed conn.
func closed(t testing.TB, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, syscall.EAGAIN) || err == nil {
		t.Fatalf("read %d bytes, %v, want the end", n, err)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatal("the connection stays open")
	}
}

func TestHEPTCP_takesPacketsHoweverTheyAreCut(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	var all []byte
	var want []string
	for i := range 10 {
		payload := fmt.Sprintf("packet-%d", i)
		want = append(want, payload)
		all = append(all, good(t, payload)...)
	}
	n := 0
	for _, size := range []int{len(all), 1, 7, 100, 200} { // bytes a write
		conn := dial(t, s)
		for b := all; len(b) > 0; b = b[min(size, len(b)):] {
			send(t, conn, b[:min(size, len(b))])
		}
		n += len(want)
		events := in.wait(t, n)
		if got := payloads(events[n-len(want):]); got != strings.Join(want, " ") {
			t.Errorf("%d bytes a write: got %q", size, got)
		}
		_ = conn.Close()
	}
	wantDropped(t, s.count, nil)
}

func TestHEPTCP_writesOnceForARead(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	conn := dial(t, s)
	var eight []byte
	for range 8 {
		eight = append(eight, good(t, "x")...)
	}
	send(t, conn, eight)
	in.wait(t, 8)
	if len(in.writes) != 1 {
		t.Errorf("writes of %v events, want one of 8", in.writes)
	}
}

func TestHEPTCP_givesEventsThatHaveNoTimeThatOfReading(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	before := time.Now()
	send(t, dial(t, s), packet(t, message, func(p *hep.Packet) { p.Clear(hep.FieldTime) }))
	if at := in.wait(t, 1)[0].Time; at.Before(before) || at.After(time.Now()) {
		t.Errorf("time is %v", at)
	}
}

func TestHEPTCP_badPacketsCostNothingButThemselves(t *testing.T) {
	s, log := listenTCP(t, HEPOptions{Auth: "secret"})
	in := newInbox()
	start(t, s, in)
	key := func(p *hep.Packet) { p.AuthKey = []byte("secret") }
	badChunk := packet(t, "bad", key)
	binary.BigEndian.PutUint16(badChunk[10:], 5)
	var all []byte
	for _, b := range [][]byte{
		packet(t, "one", key), badChunk, packet(t, "two", key), good(t, "without key"), []byte("\r\n\r\n\x00"),
		[]byte("HEP3\x00\x06"), packet(t, "three", key),
	} {
		all = append(all, b...)
	}
	send(t, dial(t, s), all)
	if got := payloads(in.wait(t, 3)); got != "one two three" {
		t.Errorf("got %q", got)
	}
	wantDropped(t, s.count, map[drop]int{dropChunk: 1, dropAuth: 2})
	if !strings.Contains(log.String(), `reason="bad chunk"`) {
		t.Errorf("the log says %q", log.String())
	}
}

func TestHEPTCP_endsAStreamThatIsOutOfStep(t *testing.T) {
	tests := []struct{ name, bytes, hint string }{
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"},
		{"HTTP", "POST /hep HTTP/1.1\r\nHost: tap\r\n\r\n", "HTTP"},
		{"HEP1", "\x01\x10\x02\x11\x13\xc4\x13\xce\x7f\x00\x00\x01\x7f\x00\x00\x02SIP", "HEP1"},
		{"noise", "\xde\xad\xbe\xef\xde\xad\xbe\xef", "out of step"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, log := listenTCP(t, HEPOptions{})
			in := newInbox()
			start(t, s, in)
			other := dial(t, s)
			send(t, other, good(t, "one"))
			in.wait(t, 1)
			bad := dial(t, s)
			send(t, bad, append(good(t, "before"), tt.bytes...))
			closed(t, bad)
			send(t, other, good(t, "two"))
			if got := payloads(in.wait(t, 3)); got != "one before two" {
				t.Errorf("got %q", got)
			}
			wantDropped(t, s.count, map[drop]int{dropStream: 1})
			if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), tt.hint) || !strings.Contains(log.String(), bad.LocalAddr().String()) {
				t.Errorf("the log says %q, want one line of %s from %s", log.String(), tt.hint, bad.LocalAddr())
			}
		})
	}
}

func TestHEPTCP_countsAPacketThatItsSenderDidNotFinish(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	conn := dial(t, s)
	b := good(t, "x")
	send(t, conn, append(good(t, "whole"), b[:len(b)-1]...))
	_ = conn.Close()
	in.wait(t, 1)
	for dropped(s.count, dropTruncated) == 0 {
		time.Sleep(time.Millisecond)
	}
	wantDropped(t, s.count, map[drop]int{dropTruncated: 1})
}

func TestHEPTCP_refusesMoreConnectionsThanItMay(t *testing.T) {
	s, log := listenTCP(t, HEPOptions{MaxConns: 2})
	in := newInbox()
	start(t, s, in)
	one, two := dial(t, s), dial(t, s)
	send(t, one, good(t, "one"))
	send(t, two, good(t, "two"))
	in.wait(t, 2)
	closed(t, dial(t, s))
	if !strings.Contains(log.String(), "too many connections") {
		t.Errorf("the log says %q", log.String())
	}
	if open, refused := testutil.ToFloat64(s.conns.open), testutil.ToFloat64(s.conns.refused); open != 2 || refused != 1 {
		t.Errorf("%v open, %v refused, want 2 and 1", open, refused)
	}
	send(t, one, good(t, "three")) // those inside notice nothing
	in.wait(t, 3)
	_ = two.Close()
	for testutil.ToFloat64(s.conns.open) != 1 {
		time.Sleep(time.Millisecond)
	}
	for len(in.wait(t, 3)) < 4 { // soon there is a place again
		conn := dial(t, s)
		_, _ = conn.Write(good(t, "four")) // and if it is refused, once more
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = conn.Read(make([]byte, 1))
	}
}

// pipe serves one end of a pipe in a bubble of its own time.
func pipe(t *testing.T, s *HEPTCP, sink trace.Sink) (agent net.Conn, done chan struct{}) {
	t.Helper()
	agent, conn := net.Pipe()
	done = make(chan struct{})
	go func() {
		defer close(done)
		s.serve(t.Context(), conn, sink)
	}()
	return agent, done
}

func TestHEPTCP_letsAgentsBeSilentButNotWithinAPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := listenTCP(t, HEPOptions{})
		in := newInbox()
		agent, done := pipe(t, s, in)
		for range 3 {
			send(t, agent, good(t, "x"))
			time.Sleep(10 * time.Hour)
		}
		in.wait(t, 3)
		began := time.Now()
		send(t, agent, []byte("HEP3\x01"))
		time.Sleep(29 * time.Second) // one byte then does not buy more time
		send(t, agent, []byte("\x00"))
		<-done
		if took := time.Since(began); took != defaultFrameTimeout {
			t.Errorf("a packet had %v, want %v", took, defaultFrameTimeout)
		}
		wantDropped(t, s.count, map[drop]int{dropTimeout: 1})
		s.bad.flush()
	})
}

func TestHEPTCP_goesOnAcceptingAfterTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := listenTCP(t, HEPOptions{})
		ours := &shortOfFiles{Listener: s.ln, failures: 12}
		s.ln = ours
		began := time.Now()
		conn := s.accept(t.Context())
		if conn == nil {
			t.Fatal("accept gives up")
		}
		_ = conn.Close()
		// 5 ms, doubled until a second: 5+10+…+640 and then a second each.
		if took, want := time.Since(began), 1275*time.Millisecond+4*time.Second; took != want {
			t.Errorf("waited %v, want %v", took, want)
		}
		s.bad.flush()
		if n := strings.Count(log.String(), "\n"); n < 2 || n > 7 {
			t.Errorf("%d lines in the log, want one a second: %s", n, log.String())
		}
	})
}

// shortOfFiles is a listener that fails a few times first.
type shortOfFiles struct {
	net.Listener
	failures int
}

func (l *shortOfFiles) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	conn, other := net.Pipe()
	_ = other.Close()
	return conn, nil
}

func TestHEPTCP_writesOneBatchAtATime(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	var inside, most atomic.Int32
	in := newInbox()
	start(t, s, trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		most.Store(max(most.Load(), inside.Add(1)))
		defer inside.Add(-1)
		return in.Write(ctx, events)
	}))
	const conns, each = 20, 50
	for range conns {
		conn := dial(t, s)
		go func() {
			for range each {
				_, _ = conn.Write(good(t, "x"))
			}
		}()
	}
	in.wait(t, conns*each)
	if most.Load() != 1 {
		t.Errorf("%d writes at a time, want 1", most.Load())
	}
}

func TestHEPTCP_closesConnectionsAndWaitsForThem(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, log := listenTCP(t, HEPOptions{})
	in := newInbox()
	stop := start(t, s, in)
	idle, busy, half := dial(t, s), dial(t, s), dial(t, s)
	send(t, idle, good(t, "x"))
	send(t, busy, good(t, "x"))
	send(t, half, good(t, "x")[:20])
	in.wait(t, 2)
	for testutil.ToFloat64(s.conns.open) != 3 {
		time.Sleep(time.Millisecond)
	}
	stop()
	for _, conn := range []net.Conn{idle, busy, half} {
		closed(t, conn)
	}
	if open := testutil.ToFloat64(s.conns.open); open != 0 {
		t.Errorf("%v connections are open", open)
	}
	wantDropped(t, s.count, nil)
	if log.String() != "" {
		t.Errorf("the log says %q", log.String())
	}
}

func TestHEPTCP_endsWhenItIsClosed(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	in := newInbox()
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context(), in) }()
	send(t, dial(t, s), good(t, "x"))
	in.wait(t, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}
