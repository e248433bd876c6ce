package outage_test

import (
	"context"
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
	"github.com/seed-452fa805/siptrace/internal/spool"
	"github.com/seed-452fa805/siptrace/internal/testport"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// quick is the time a test waits for what should happen soon.
const quick = 60 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(quick)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", quick, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func testLog(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// freeAddr returns a loopback address where nobody listens now, another one
// each time.
func freeAddr(t testing.TB) string { return testport.Addr(t, 14_000, 2000) }

// startServer runs NATS with its streams until the test ends.
func startServer(t testing.TB, dir, addr string, cfg bus.StreamConfig) *natsd.Server {
	t.Helper()
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: addr, Log: testLog(t), MaxStore: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	c := connect(t, "nats://"+addr)
	if err := c.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureStreams(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t testing.TB, url string) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(bus.Options{URL: url, Name: "test"}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// tap is a publisher with a spool, as a tap has it.
type tap struct {
	*bus.Publisher
	reg  *prometheus.Registry
	stop func() error // ends it as SIGTERM does
}

type tapOptions struct {
	bus.PublisherOptions
	size       int64
	dropOldest bool
}

// startTap runs a tap until the test ends.
func startTap(t testing.TB, addr, dir string, o tapOptions) *tap {
	t.Helper()
	reg := prometheus.NewRegistry()
	s, err := spool.Open(dir, spool.Options{MaxBytes: o.size, DropOldest: o.dropOldest}, reg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	o.Agent, o.Subsystem, o.Spool = "edge", "tap", s
	if o.SpoolSync == 0 {
		o.SpoolSync = 10 * time.Millisecond
	}
	p, err := bus.NewPublisher(connect(t, "nats://"+addr), o.PublisherOptions, reg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return &tap{p, reg, stop}
}

// metric is the sum of all series of siptrace_tap_<name>.
func (p *tap) metric(t testing.TB, name string) int { return metric(t, p.reg, name) }

func metric(t testing.TB, reg prometheus.Gatherer, name string) int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "siptrace_tap_"+name {
			sum := 0.0
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return int(sum)
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// offerAll offers the events from first to below last, in order, and waits
// where there is no room.
func (p *tap) offerAll(t testing.TB, first, last int) {
	t.Helper()
	for first < last {
		first += p.Offer(makeEvents(first, min(50, last-first)))
		eventually(t, "there is room again", func() bool {
			n := p.Offer(makeEvents(first, min(1, last-first)))
			first += n
			return n == 1 || first == last
		})
	}
}

// makeEvents returns n different events, from the serial first on.
func makeEvents(first, n int) []trace.Event {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	events := make([]trace.Event, n)
	for i := range events {
		serial := first + i
		noise := func(n uint64) uint64 { return (uint64(serial) + n) * 0x9e3779b97f4a7c15 >> 3 * 0xbf58476d1ce4e5b9 }
		events[i] = trace.Event{
			Time:      at.Add(time.Duration(serial) * time.Microsecond),
			Agent:     trace.Agent{ID: 7, Name: "edge"},
			Transport: trace.UDP,
			Src:       netip.MustParseAddrPort("192.0.2.1:5060"),
			Dst:       netip.MustParseAddrPort("198.51.100.2:5060"),
			Type:      trace.TypeSIP,
			Payload: fmt.Appendf(nil, "INVITE sip:+4930%08[1]d@example.org;user=phone SIP/2.0\r\n"+
				"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%016[2]x;rport\r\n"+
				"Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=%016[3]x\r\n"+
				"To: <sip:+4930%08[1]d@example.org;user=phone>\r\nCall-ID: call-%[4]d-%[5]x@192.0.2.1\r\nCSeq: 1 INVITE\r\n"+
				"Contact: <sip:alice@192.0.2.1:5060;ob>\r\nX-Serial: %[1]d\r\nContent-Length: 0\r\n\r\n",
				serial, noise(1), noise(2), serial/callLength, serial/callLength*7919),
		}
		events[i].Identify()
	}
	return events
}

// callLength is the number of messages in a call, one behind the other.
const callLength = 6

func serialOf(e *trace.Event) int {
	_, rest, _ := strings.Cut(string(e.Payload), "X-Serial: ")
	digits, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return -1
	}
	return n
}

// stored returns the serials of the stream, in its order.
func stored(t testing.TB, addr string) (serials []int) {
	t.Helper()
	tail := bus.NewTail(connect(t, "nats://"+addr), bus.TailOptions{All: true, Stop: true}, testLog(t))
	err := tail.Run(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		for i := range events {
			serials = append(serials, serialOf(&events[i]))
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return serials
}

// wantOnce checks that the serials from first to below last are there, once
// each, and no others.
func wantOnce(t testing.TB, serials []int, first, last int) {
	t.Helper()
	seen := make(map[int]int)
	for _, n := range serials {
		seen[n]++
	}
	missing, double := 0, 0
	for n := first; n < last; n++ {
		switch {
		case seen[n] == 0:
			missing++
		case seen[n] > 1:
			double++
		}
	}
	if missing > 0 || double > 0 || len(seen) != last-first {
		t.Errorf("of %d events %d are missing and %d are there more than once; %d different ones in all",
			last-first, missing, double, len(seen))
	}
}
