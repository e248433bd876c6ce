package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// quick is the time a test waits for what should happen at once, on a
	// machine that does much else.
	quick = time.Minute

	// heard is how long a change may take that is told as it happens. What is
	// missed is read after 15 s.
	heard = 5 * time.Second
)

// testLog writes to the test's own log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// startServer runs an embedded server until the test ends.
func startServer(t testing.TB, dir, listen string) *natsd.Server {
	t.Helper()
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: listen, Log: testLog(t), MaxStore: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// connect returns a connection that is closed when the test ends.
func connect(t testing.TB, url, name string) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(bus.Options{URL: url, Name: name}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ensure makes the streams, waiting for the server if need be.
func ensure(t testing.TB, c *bus.Conn, cfg bus.StreamConfig) {
	t.Helper()
	eventually(t, "the streams are made", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if c.Await(ctx) != nil {
			return false
		}
		_, err := c.EnsureStreams(ctx, cfg)
		return err == nil
	})
}

// bed is a server with its streams and one connection.
func bed(t testing.TB) (*natsd.Server, *bus.Conn) {
	t.Helper()
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{})
	return s, c
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(quick)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", quick, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// running runs f until the test ends or the returned function is called; that
// waits for it and returns its error.
func running(t testing.TB, f func(ctx context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = f(ctx)
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		<-done
		return err
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// publisher returns a publisher that runs until the test ends.
func publisher(t testing.TB, c *bus.Conn, o bus.PublisherOptions) (*bus.Publisher, *prometheus.Registry, func() error) {
	t.Helper()
	reg := prometheus.NewRegistry()
	if o.Agent == "" {
		o.Agent = "test"
	}
	p, err := bus.NewPublisher(c, o, reg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return p, reg, running(t, p.Run)
}

// consume runs a consumer into sink until the test ends.
func consume(t testing.TB, c *bus.Conn, o bus.ConsumerOptions, sink trace.Sink) (*prometheus.Registry, func() error) {
	t.Helper()
	reg := prometheus.NewRegistry()
	if o.Durable == "" {
		o.Durable = "worker"
	}
	consumer, err := bus.NewConsumer(c, o, bus.NewRejects(c), reg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return reg, running(t, func(ctx context.Context) error { return consumer.Run(ctx, sink) })
}

// makeEvents returns n different events, from the serial first on.
func makeEvents(first, n int) []trace.Event {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	events := make([]trace.Event, n)
	for i := range events {
		serial := first + i
		events[i] = trace.Event{
			Time:      at.Add(time.Duration(serial) * time.Microsecond),
			Agent:     trace.Agent{ID: 7, Name: "edge-1"},
			Transport: trace.UDP,
			Src:       netip.MustParseAddrPort("192.0.2.1:5060"),
			Dst:       netip.MustParseAddrPort("198.51.100.2:5060"),
			Type:      trace.TypeSIP,
			Payload:   invite(serial),
		}
		events[i].Identify()
	}
	return events
}

// invite returns a request of some 800 bytes, with identifiers that compress
// as badly as real ones.
func invite(serial int) []byte {
	noise := func(n uint64) uint64 { return (uint64(serial) + n) * 0x9e3779b97f4a7c15 >> 3 * 0xbf58476d1ce4e5b9 }
	return fmt.Appendf(nil, "INVITE sip:+4930%08[1]d@example.org;user=phone SIP/2.0\r\n"+
		"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%016[2]x;rport\r\n"+
		"Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=%016[3]x\r\n"+
		"To: <sip:+4930%08[1]d@example.org;user=phone>\r\nCall-ID: %016[4]x%016[5]x@192.0.2.1\r\nCSeq: 1 INVITE\r\n"+
		"Contact: <sip:alice@192.0.2.1:5060;ob>\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK, INFO, REFER\r\n"+
		"Supported: replaces, 100rel, timer, norefersub\r\nSession-Expires: 1800\r\nUser-Agent: test/1.0\r\nX-Serial: %[1]d\r\n"+
		"Content-Type: application/sdp\r\nContent-Length: 194\r\n\r\n"+
		"v=0\r\no=- %[6]d %[6]d IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio %[7]d RTP/AVP 8 0 101\r\n"+
		"a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n",
		serial, noise(1), noise(2), noise(3), noise(4), noise(5)%1e9, 16384+noise(6)%16384)
}

// serialOf reads back which event of makeEvents e is.
func serialOf(e *trace.Event) int {
	_, rest, _ := strings.Cut(string(e.Payload), "X-Serial: ")
	digits, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}

// keeper is a sink that remembers how often it was given which event.
type keeper struct {
	mu    sync.Mutex
	seen  map[int]int
	fail  func(events []trace.Event) error // nil never fails
	calls int
}

func (k *keeper) Write(_ context.Context, events []trace.Event) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.fail != nil {
		if err := k.fail(events); err != nil && !errors.As(err, new(trace.Rejected)) {
			return err
		} else if err != nil {
			k.keep(events)
			return err
		}
	}
	k.keep(events)
	return nil
}

func (k *keeper) keep(events []trace.Event) {
	if k.seen == nil {
		k.seen = make(map[int]int)
	}
	for i := range events {
		k.seen[serialOf(&events[i])]++
	}
}

// distinct is the number of different events; all counts repetitions.
func (k *keeper) distinct() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.seen)
}

func (k *keeper) all() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, times := range k.seen {
		n += times
	}
	return n
}

// metric returns the sum of all series of a metric.
func metric(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return sum
	}
	t.Fatalf("no metric %s", name)
	return 0
}
