package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// has reports whether a collector has all payloads, and how many came more
// than once.
func (c *tcpCollector) has(events []trace.Event) (all bool, again int) {
	got := c.payloads()
	for i := range events {
		n := got[string(events[i].Payload)]
		if n == 0 {
			return false, 0
		}
		if n > 1 {
			again++
		}
	}
	return true, again
}

func (c *tcpCollector) hasOnce(t testing.TB, events []trace.Event) {
	t.Helper()
	eventually(t, "the collector has all events", func() bool { all, _ := c.has(events); return all })
	if _, again := c.has(events); again > 0 {
		t.Errorf("%d events came more than once", again)
	}
}

func TestTCP_deliversEveryEventOnce(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	events := invites(5000) // some megabytes
	for i := 0; i < len(events); i += 500 {
		if err := s.Write(t.Context(), events[i:i+500]); err != nil {
			t.Fatal(err)
		}
	}
	c.hasOnce(t, events)
	if got := c.accepted(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	if got := metric(t, s.reg, "events_sent_total", s.d.Name()); got != 5000 {
		t.Errorf("events_sent_total = %v, want 5000", got)
	}
	if got := metric(t, s.reg, "connections"); got != 1 {
		t.Errorf("connections = %v, want 1", got)
	}
}

func TestTCP_servesSeveralWritersAtOnce(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	events := invites(4000)
	var wg sync.WaitGroup
	for i := 0; i < len(events); i += 100 {
		wg.Go(func() { deliver(t, s, events[i:i+100]) })
	}
	wg.Wait()
	c.hasOnce(t, events)
}

func TestTCP_losesNothingWhenTheConnectionBreaksInTheMiddle(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"closed": func(conn net.Conn) { _ = conn.Close() },
		"reset":  reset,
	} {
		t.Run(name, func(t *testing.T) {
			c := listenTCP(t, "127.0.0.1:0", nil, func(c *tcpCollector, conn net.Conn, n int) {
				if n < 3 {
					c.read(conn, 50+n)
					end(conn)
					return
				}
				readAll(c, conn, n)
			})
			s := openSink(t, "hep+tcp://"+c.addr(), Options{})
			events := invites(1000)
			for i := 0; i < len(events); i += 250 {
				deliver(t, s, events[i:i+250])
			}
			eventually(t, "the collector has all events", func() bool { all, _ := c.has(events); return all })
			if got := c.accepted(); got != 4 {
				t.Errorf("%d connections, want 4", got)
			}
		})
	}
}

func TestTCP_noticesThatTheCollectorHasHungUp(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	events := invites(20)
	deliver(t, s, events[:10])
	c.hangUp()
	eventually(t, "the sink knows", func() bool { return metric(t, s.reg, "connections") == 0 })
	if err := s.Write(t.Context(), events[10:]); err != nil {
		t.Errorf("Write error = %v, want none: there is a new connection", err)
	}
	c.hasOnce(t, events)
}

func TestTCP_noticesHalfAClose(t *testing.T) {
	done := make(chan struct{})
	c := listenTCP(t, "127.0.0.1:0", nil, func(c *tcpCollector, conn net.Conn, n int) {
		if n == 0 {
			c.read(conn, 10)
			<-done
			_ = conn.(*net.TCPConn).CloseWrite()
			return // and leave it open, reading no more
		}
		readAll(c, conn, n)
	})
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	events := invites(20)
	deliver(t, s, events[:10])
	close(done)
	eventually(t, "the sink knows", func() bool { return metric(t, s.reg, "connections") == 0 })
	deliver(t, s, events[10:])
	eventually(t, "the collector has all events", func() bool { all, _ := c.has(events); return all })
}

func TestTCP_waitsForACollectorThatIsAway(t *testing.T) {
	addr := closedPort(t, "tcp")
	s := openSink(t, "hep+tcp://"+addr, Options{})
	events := invites(10)
	want := "waiting for collector " + addr + ": connection refused"
	for range 3 {
		if err := s.Check(t.Context()); err == nil || err.Error() != want {
			t.Errorf("Check() = %v, want %s", err, want)
		}
	}
	err := s.Write(t.Context(), events)
	if !errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write error = %v, want connection refused, to be tried again", err)
	}
	c := listenTCP(t, addr, nil, readAll)
	deliver(t, s, events)
	c.hasOnce(t, events)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
}

func TestTCP_connectsToBeReady(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	for range 3 {
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("Check() = %v, want nil", err)
		}
	}
	if got := metric(t, s.reg, "connects_total"); got != 1 {
		t.Errorf("connects_total = %v, want 1", got)
	}
}

func TestTCP_givesUpAPeerThatNeverReads(t *testing.T) {
	for name, n := range map[string]int{"the kernel takes it": 300, "nor has the kernel room": 30000} {
		t.Run(name, func(t *testing.T) {
			c := listenTCP(t, "127.0.0.1:0", nil, func(_ *tcpCollector, conn net.Conn, _ int) {
				_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			})
			s := openSink(t, "hep+tcp://"+c.addr(), Options{WriteTimeout: 300 * time.Millisecond})
			err := s.Write(t.Context(), invites(n))
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ETIMEDOUT) {
				t.Fatalf("Write error = %v, want a timeout", err)
			}
			if errors.Is(err, trace.ErrPermanent) {
				t.Errorf("Write error = %v, want one to be tried again", err)
			}
			if got := metric(t, s.reg, "connections"); got != 0 {
				t.Errorf("connections = %v, want the connection given up", got)
			}
		})
	}
}

func TestTCP_endsWithTheContext(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readNothing)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{WriteTimeout: time.Hour})
	for _, n := range []int{300, 30000} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := s.Write(ctx, invites(n))
		cancel()
		if n == 300 && err == nil {
			continue // the kernel of the peer took it
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write of %d error = %v, want %v", n, err, context.DeadlineExceeded)
		}
	}
}

func TestTCP_endsWithClose(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readNothing)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{WriteTimeout: time.Hour})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Write(context.Background(), invites(30000)) }()
	busy := s.Sink.(*stream).turn
	eventually(t, "the Write is under way", func() bool { return len(busy) == 1 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write error = %v, want %v", err, net.ErrClosed)
	}
	if err := s.Write(t.Context(), invites(1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write error = %v, want %v", err, net.ErrClosed)
	}
}

func TestTCP_doesNotTrustAConnectionThatIsClosedAtOnce(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, func(c *tcpCollector, conn net.Conn, n int) {
		if n < 2 {
			_ = conn.Close() // as one does whose list of peers we are not on
			return
		}
		readAll(c, conn, n)
	})
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	events := invites(1)
	deliver(t, s, events)
	c.hasOnce(t, events)
}

func TestTCP_rejectsWhatIsTooLongAndNotItsNeighbours(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{SkipAddressed: true})
	events := invites(600) // more than one piece
	events[0].Flags = trace.NoDuplicate
	events[1] = large(t, 1, hep.MaxSize)
	events[500] = large(t, 500, hep.MaxSize+1)
	events[550].Destinations = []string{"sip:127.0.0.1"}
	no := rejections(t, s.Write(t.Context(), events))
	if len(no) != 1 || no[0].Index != 500 || no[0].Reason != "too long for hep" {
		t.Fatalf("rejected %+v, want event 500 only", no)
	}
	want := append(append(append([]trace.Event{}, events[1:500]...), events[501:550]...), events[551:]...)
	c.hasOnce(t, want)
	if got := len(c.payloads()); got != len(want) {
		t.Errorf("%d payloads came, want %d", got, len(want))
	}
}

func TestTCP_connectsForNothingThatIsSkipped(t *testing.T) {
	s := openSink(t, "hep+tcp://"+closedPort(t, "tcp"), Options{})
	e := invite(1)
	e.Flags = trace.NoDuplicate
	if err := s.Write(t.Context(), []trace.Event{e}); err != nil {
		t.Errorf("Write error = %v, want none: there was nothing to send", err)
	}
}

func TestTCP_sendsFromTheAddressGiven(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	s := openSink(t, "hep+tcp://"+c.addr()+"?from=127.0.0.9", Options{})
	deliver(t, s, invites(1))
	if got := c.peer(0); !strings.HasPrefix(got, "127.0.0.9:") {
		t.Errorf("connected from %s, want 127.0.0.9", got)
	}
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	server := ours.issue(t, "server")
	ours.issue(t, "client")
	theirs.issue(t, "client")
	q := func(a *authority, more string) string {
		return "?ca=" + ours.file("ca") + "&cert=" + a.file("client") + "&key=" + a.file("client-key") + more
	}
	tests := []struct {
		name, options string
		asks          bool   // the server asks for a certificate
		fails         string // part of the error, if it is to fail
	}{
		{"own authority", "?ca=" + ours.file("ca"), false, ""},
		{"unknown authority", "?ca=" + theirs.file("ca"), false, "certificate signed by unknown authority"},
		{"the system's authorities", "", false, "certificate signed by unknown authority"},
		{"believed whatever it is", "?insecure=1", false, ""},
		{"name in the certificate", "?server-name=collector.test&ca=" + ours.file("ca"), false, ""},
		{"another name", "?server-name=other.test&ca=" + ours.file("ca"), false, "not other.test"},
		{"own certificate", q(ours, ""), true, ""},
		{"no certificate of ours", "?ca=" + ours.file("ca"), true, "tls"},
		{"a certificate they do not know", q(theirs, ""), true, "tls"},
	}
	for _, version := range []uint16{0x0303, 0x0304} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, version %x", tt.name, version), func(t *testing.T) {
				c := listenTCP(t, "127.0.0.1:0", ours.server(server, tt.asks, version), readAll)
				s := openSink(t, "hep+tls://"+c.addr()+tt.options, Options{})
				events := invites(1000)
				if tt.fails == "" {
					if err := s.Check(t.Context()); err != nil {
						t.Fatalf("Check() = %v, want nil", err)
					}
					deliver(t, s, events)
					c.hasOnce(t, events)
					return
				}
				err := s.Write(t.Context(), events)
				if err == nil || errors.Is(err, trace.ErrPermanent) || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("Write error = %v, want %q in it, to be tried again", err, tt.fails)
				}
				// On a busy machine the refusal may come after the probation; then the next look shows it.
				eventually(t, "Check() says that it waits", func() bool { return s.Check(t.Context()) != nil })
				if got := len(c.payloads()); got != 0 {
					t.Errorf("%d payloads came, want none", got)
				}
			})
		}
	}
}

func TestTLS_losesNothingWhenTheConnectionBreaksInTheMiddle(t *testing.T) {
	a := newAuthority(t)
	c := listenTCP(t, "127.0.0.1:0", a.server(a.issue(t, "server"), false, 0x0304), func(c *tcpCollector, conn net.Conn, n int) {
		if n < 2 {
			c.read(conn, 50)
			_ = conn.Close()
			return
		}
		readAll(c, conn, n)
	})
	s := openSink(t, "hep+tls://"+c.addr()+"?ca="+a.file("ca"), Options{})
	events := invites(1000)
	deliver(t, s, events)
	eventually(t, "the collector has all events", func() bool { all, _ := c.has(events); return all })
}

func TestTLS_givesUpAServerThatSpeaksNoTLS(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readNothing)
	s := openSink(t, "hep+tls://"+c.addr(), Options{DialTimeout: 50 * time.Millisecond})
	err := s.Write(t.Context(), invites(1))
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write error = %v, want a timeout, to be tried again", err)
	}
	if err := s.Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "waiting for collector "+c.addr()) {
		t.Errorf("Check() = %v, want it to be waiting", err)
	}
}

func TestTLS_readsItsFilesWhenOpened(t *testing.T) {
	a := newAuthority(t)
	a.issue(t, "client")
	if err := os.WriteFile(a.file("empty"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for options, want := range map[string]string{
		"ca=" + a.file("missing"): "no such file",
		"ca=" + a.file("empty"):   "no certificate in the file",
		"cert=" + a.file("missing") + "&key=" + a.file("client-key"):    "no such file",
		"cert=" + a.file("client") + "&key=" + a.file("empty"):          "cert and key",
		"cert=" + a.file("client-key") + "&key=" + a.file("client-key"): "cert and key",
		"ca=" + a.dir: "is a directory",
	} {
		_, err := Open(parse(t, "hep+tls://homer?"+options), Options{}, nil, discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open with %s error = %v, want %q in it", options, err, want)
		}
	}
}
