package forward

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// nameServer is a DNS server that knows one address of one name.
type nameServer struct {
	conn net.PacketConn

	mu    sync.Mutex
	addrs []netip.Addr // nil is no such name
	asked int
}

const knownName = "collector.test."

func startNameServer(t testing.TB, addrs ...string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn}
	s.set(addrs...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return s
}

// set changes the addresses of the name.
func (s *nameServer) set(addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = nil
	for _, a := range addrs {
		s.addrs = append(s.addrs, netip.MustParseAddr(a))
	}
}

// questions is how often it was asked for an IPv4 address of the name.
func (s *nameServer) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// resolver asks this server only.
func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

func (s *nameServer) run() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		s.answer(&m)
		if b, err := m.Pack(); err == nil {
			_, _ = s.conn.WriteTo(b, from)
		}
	}
}

func (s *nameServer) answer(m *dnsmessage.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := m.Questions[0]
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	if q.Name.String() != knownName || len(s.addrs) == 0 {
		m.RCode = dnsmessage.RCodeNameError
		return
	}
	if q.Type != dnsmessage.TypeA {
		return
	}
	s.asked++
	for _, a := range s.addrs {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: a.As4()},
		})
	}
}

// listenTwice listens on one port of two addresses.
func listenTwice(t testing.TB) (one, two *udpCollector, port string) {
	t.Helper()
	one = listenUDP(t, "127.0.0.1:0")
	_, port, _ = strings.Cut(one.addr(), ":")
	return one, listenUDP(t, "127.0.0.2:"+port), port
}

func TestUDP_looksANameUpNowAndThenButNotForAnEvent(t *testing.T) {
	one, two, port := listenTwice(t)
	dns := startNameServer(t, "127.0.0.1")
	s := openSink(t, "hep+udp://collector.test:"+port, Options{Resolver: dns.resolver(), ResolveEvery: time.Hour})
	for range 100 {
		deliver(t, s, invites(3))
		one.take(t, 3)
	}
	if got := dns.questions(); got != 1 {
		t.Errorf("asked %d times, want once", got)
	}

	often := openSink(t, "hep+udp://collector.test:"+port, Options{Resolver: dns.resolver(), ResolveEvery: 10 * time.Millisecond})
	deliver(t, often, invites(1))
	one.take(t, 1)
	dns.set("127.0.0.2")
	eventually(t, "events go to the new address", func() bool {
		deliver(t, often, invites(1))
		return len(two.got) > 0
	})
}

func TestUDP_keepsTheAddressWhenTheNameServerFails(t *testing.T) {
	one, _, port := listenTwice(t)
	dns := startNameServer(t, "127.0.0.1")
	s := openSink(t, "hep+udp://collector.test:"+port, Options{Resolver: dns.resolver(), ResolveEvery: 10 * time.Millisecond})
	deliver(t, s, invites(1))
	dns.set()
	eventually(t, "a lookup has failed", func() bool { return metric(t, s.reg, "errors_total", "resolve") > 0 })
	deliver(t, s, invites(1))
	one.take(t, 2)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
}

func TestUDP_waitsForANameThatIsNotKnownYet(t *testing.T) {
	one, _, port := listenTwice(t)
	dns := startNameServer(t)
	s := openSink(t, "hep+udp://collector.test:"+port, Options{Resolver: dns.resolver(), ResolveEvery: 10 * time.Millisecond})
	err := s.Write(t.Context(), invites(1))
	if err == nil || errors.Is(err, trace.ErrPermanent) || !strings.Contains(err.Error(), "no such host") {
		t.Fatalf("Write error = %v, want no such host, to be tried again", err)
	}
	want := "waiting for collector collector.test:" + port + ": lookup collector.test"
	if err := s.Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Check() = %v, want %s …", err, want)
	}
	dns.set("127.0.0.1")
	eventually(t, "the name is known", func() bool { return s.Check(t.Context()) == nil })
	deliver(t, s, invites(1))
	one.take(t, 1)
}

func TestUDP_triesAnotherAddressWhenOneRefuses(t *testing.T) {
	port := closedPort(t, "udp")
	_, port, _ = strings.Cut(port, ":")
	two := listenUDP(t, "127.0.0.2:"+port)
	dns := startNameServer(t, "127.0.0.1", "127.0.0.2")
	s := openSink(t, "hep+udp://collector.test:"+port, Options{Resolver: dns.resolver(), ResolveEvery: 10 * time.Millisecond})
	events := invites(3)
	deliver(t, s, events)
	for i, p := range two.take(t, 3) {
		if !bytes.Equal(p.Payload, events[i].Payload) {
			t.Errorf("packet %d is not event %d", i, i)
		}
	}
}

func TestUDP_givesUpALookupWithTheContext(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	silent := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		<-release // a name server that does not answer
		return nil, net.ErrClosed
	}}
	s := openSink(t, "hep+udp://collector.test", Options{Resolver: silent})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Write(ctx, invites(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Write error = %v, want %v", err, context.DeadlineExceeded)
	}
}
