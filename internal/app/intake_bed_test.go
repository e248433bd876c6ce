package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

const (
	// patience is the time a test waits for what should happen at once.
	patience = time.Minute

	// heard is how long a change may take that is told as it happens. What is
	// missed is read after 15 s.
	heard = 5 * time.Second
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// startNATS runs a server until the test ends.
func startNATS(t *testing.T) *natsd.Server {
	t.Helper()
	s, err := natsd.Start(natsd.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: quietLog(), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// dial returns a connection to a server that has the streams.
func dial(t *testing.T, url string) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(bus.Options{URL: url, Name: "test"}, quietLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	eventually(t, "the streams are there", func() bool {
		_, err := c.EnsureStreams(t.Context(), bus.StreamConfig{})
		return err == nil
	})
	return c
}

// startTap runs a tap until the test ends, and returns where it listens.
func startTap(t *testing.T, url, name, mode string) string {
	t.Helper()
	addr := freeAddr(t)
	flags := TapFlags{In: []string{"hep+udp://" + addr}, Mode: mode, AgentName: name, Buffer: 8 << 20, Compress: bus.CompressS2, Data: t.TempDir()}
	background(t, func(ctx context.Context) {
		log := quietLog()
		if code := Run(ctx, log, Base(log), TapModule(flags, bus.Options{URL: url, Name: "tap-" + name}, bus.StreamConfig{})); code != ExitDone {
			t.Errorf("tap %s ended with code %d", name, code)
		}
	})
	return addr
}

// background runs f until the test ends.
func background(t *testing.T, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// A talk is a call, or whatever else has one Call-ID.
type talk struct{ id, from, to string }

// say is one message of a talk: a method, "486 INVITE", or "< BYE" for one that
// the callee begins.
func (c talk) say(what string) trace.Event {
	from, to := c.from+";f", c.to+";t"
	what, reversed := strings.CutPrefix(what, "< ")
	if reversed {
		from, to = to, from
	}
	status, method, reply := strings.Cut(what, " ")
	if !reply {
		method = what
	}
	start := method + " sip:" + c.to + "@example.com SIP/2.0"
	src, dst := netip.MustParseAddrPort("192.0.2.10:5060"), netip.MustParseAddrPort("198.51.100.20:5060")
	if reply {
		start = "SIP/2.0 " + status + " Reason"
	}
	if reply != reversed {
		src, dst = dst, src
	}
	if !reply && !reversed && (method == "INVITE" || method == "CANCEL" || method == "OPTIONS") || status == "100" {
		to, _, _ = strings.Cut(to, ";")
	}
	tagged := func(s string) string {
		user, tag, ok := strings.Cut(s, ";")
		if !ok {
			return "<sip:" + user + "@example.com>"
		}
		return "<sip:" + user + "@example.com>;tag=" + tag
	}
	payload := fmt.Sprintf("%s\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n",
		start, src, c.id, tagged(from), tagged(to), c.id, method)
	return trace.Event{Time: time.Now(), Type: trace.TypeSIP, Transport: trace.UDP, Src: src, Dst: dst, Agent: trace.Agent{ID: 7}, Payload: []byte(payload)}
}

var (
	answered  = []string{"INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK", "< INVITE", "< 200 INVITE", "< ACK", "< BYE", "< 200 BYE"}
	cancelled = []string{"INVITE", "100 INVITE", "180 INVITE", "CANCEL", "200 CANCEL", "487 INVITE", "ACK"}
)

// all are the messages of a talk.
func (c talk) all(what []string) []trace.Event {
	var events []trace.Event
	for _, w := range what {
		events = append(events, c.say(w))
	}
	return events
}

// sender sends events to a tap by HEP.
func sender(t *testing.T, addr string) func(events []trace.Event) {
	t.Helper()
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(events []trace.Event) {
		t.Helper()
		for i := range events {
			var p hep.Packet
			if err := trace.ToHEP(&p, &events[i]); err != nil {
				t.Fatal(err)
			}
			b, err := p.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A tail collects what is in the stream.
type tail struct {
	mu     sync.Mutex
	events []trace.Event
}

func startTail(t *testing.T, c *bus.Conn) *tail {
	t.Helper()
	tl := &tail{}
	background(t, func(ctx context.Context) {
		_ = bus.NewTail(c, bus.TailOptions{Since: time.Now().Add(-time.Hour)}, quietLog()).Run(ctx, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
			tl.mu.Lock()
			defer tl.mu.Unlock()
			for i := range events {
				tl.events = append(tl.events, events[i].Clone())
			}
			return nil
		}))
	})
	return tl
}

// calls is how many messages there are of each Call-ID.
func (tl *tail) calls() map[string]int {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	n := make(map[string]int)
	for i := range tl.events {
		var m sipmsg.Message
		sipmsg.Scan(&m, tl.events[i].Payload)
		n[string(m.CallID.Of(tl.events[i].Payload))]++
	}
	return n
}

func taps(t *testing.T, c *bus.Conn) []bus.NodeStatus {
	t.Helper()
	nodes, err := c.Nodes(t.Context(), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// have reports whether n taps have a revision of a rule.
func have(t *testing.T, c *bus.Conn, n int, name string, revision uint64) bool {
	t.Helper()
	count := 0
	for _, node := range taps(t, c) {
		for _, r := range node.Rules {
			if r.Name == name && r.Revision == revision {
				count++
			}
		}
	}
	return count == n
}

// without reports whether n taps answer and none of them has the rule.
func without(t *testing.T, c *bus.Conn, n int, name string) bool {
	t.Helper()
	nodes := taps(t, c)
	for _, node := range nodes {
		for _, r := range node.Rules {
			if r.Name == name {
				return false
			}
		}
	}
	return len(nodes) == n
}

// received is how many events all taps have had.
func received(t *testing.T, c *bus.Conn) int {
	t.Helper()
	n := uint64(0)
	for _, node := range taps(t, c) {
		n += node.Counters["in"]
	}
	return int(n)
}

// off switches tracing off on n taps.
func off(t *testing.T, c *bus.Conn, n int) {
	t.Helper()
	if _, err := bus.NewStateStore(c).Set(t.Context(), bus.State{Who: "test"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tracing is off on every tap", func() bool {
		nodes := taps(t, c)
		for _, node := range nodes {
			if node.StateOn {
				return false
			}
		}
		return len(nodes) == n
	})
}
