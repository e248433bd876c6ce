package listen

import (
	"bytes"
	"compress/zlib"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// message is a SIP message.
const message = "OPTIONS sip:bob@example.com SIP/2.0\r\nCall-ID: one@192.0.2.1\r\nCSeq: 1 OPTIONS\r\n\r\n"

var (
	noon     = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)
	src, dst = netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("198.51.100.2:5070")
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// packet is a HEP3 packet as agents send it, changed by change.
func packet(t testing.TB, payload string, change func(*hep.Packet)) []byte {
	t.Helper()
	p := hep.Packet{
		Version: 3, Protocol: hep.ProtocolUDP, Type: hep.TypeSIP, CaptureID: 2001,
		Src: src.Addr(), SrcPort: src.Port(), Dst: dst.Addr(), DstPort: dst.Port(),
		Node: []byte("edge1"), Payload: []byte(payload),
	}
	if err := p.SetTime(noon); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&p)
	}
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// good is the packet with this payload.
func good(t testing.TB, payload string) []byte { return packet(t, payload, nil) }

// inbox is a sink that keeps a copy of everything and can be waited on.
type inbox struct {
	mu      sync.Mutex
	events  []trace.Event
	writes  []int // the size of each
	changed chan struct{}
}

func newInbox() *inbox { return &inbox{changed: make(chan struct{}, 1)} }

func (in *inbox) Write(_ context.Context, events []trace.Event) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range events {
		in.events = append(in.events, events[i].Clone())
	}
	in.writes = append(in.writes, len(events))
	select {
	case in.changed <- struct{}{}:
	default:
	}
	return nil
}

// wait waits until there are n events and returns them.
func (in *inbox) wait(t testing.TB, n int) []trace.Event {
	t.Helper()
	for {
		in.mu.Lock()
		events := in.events
		in.mu.Unlock()
		if len(events) >= n {
			return events
		}
		select {
		case <-in.changed:
		case <-t.Context().Done():
			t.Fatalf("got %d events, want %d", len(events), n)
		case <-time.After(20 * time.Second):
			t.Fatalf("got %d events, want %d", len(events), n)
		}
	}
}

// payloads are the payloads of events, joined by spaces.
func payloads(events []trace.Event) string {
	var s []string
	for _, e := range events {
		s = append(s, string(e.Payload))
	}
	return strings.Join(s, " ")
}

// start runs a source for the length of a test and returns what ends it
// before that.
func start(t testing.TB, s Listener, sink trace.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, sink) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// dial connects to a source.
func dial(t testing.TB, s Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial(s.Addr().Network(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// send writes packets, each by itself.
func send(t testing.TB, conn net.Conn, packets ...[]byte) {
	t.Helper()
	for _, b := range packets {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

// dropped is what the metrics say for a reason.
func dropped(c *counters, d drop) int { return int(testutil.ToFloat64(c.dropped[d])) }

// wantDropped compares all that the metrics say with what they should.
func wantDropped(t *testing.T, c *counters, want map[drop]int) {
	t.Helper()
	for d := dropKernel; d < numDrops; d++ {
		if got := dropped(c, d); got != want[d] {
			t.Errorf("dropped for %q: got %d, want %d", d, got, want[d])
		}
	}
}

// words is a log that can be read while it is written.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// logger logs warnings.
func (w *words) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// listenUDP opens a UDP source on the loopback.
func listenUDP(t testing.TB, o HEPOptions) *HEPUDP {
	t.Helper()
	s, err := ListenHEPUDP("127.0.0.1:0", o, prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// deflate packs a payload as captagent does.
func deflate(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dialUDP(addr string) (net.Conn, error) { return net.Dial("udp", addr) }
