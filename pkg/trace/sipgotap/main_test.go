package sipgotap

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// TestMain sets sipgo's process-wide variables before any test uses it, and
// looks for goroutines that nobody waited for.
func TestMain(m *testing.M) {
	sip.SetDefaultLogger(slog.New(slog.DiscardHandler))
	sip.UDPMTUSize = 65000
	sip.SetTimers(time.Minute, time.Minute, time.Minute) // nothing is sent again while a machine is busy
	New(Options{}).Install()()
	goleak.VerifyTestMain(m)
}

// collector is a sink that keeps what it gets.
type collector struct {
	mu     sync.Mutex
	events []trace.Event
}

func (c *collector) Write(_ context.Context, events []trace.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		c.events = append(c.events, events[i].Clone())
	}
	return nil
}

func (c *collector) all() []trace.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]trace.Event(nil), c.events...)
}

// drain returns everything that waits in a tap.
func drain(t testing.TB, tap *Tap) []trace.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var c collector
	if err := tap.Run(ctx, &c); err != nil {
		t.Fatal(err)
	}
	return c.events
}

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// request is a SIP request, with a body of that length if there is a
// Content-Length.
func request(method, callID string, cseq, body int) []byte {
	return []byte(fmt.Sprintf("%s sip:bob@example.com SIP/2.0\r\n"+
		"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-%s-%d-%s\r\n"+
		"Max-Forwards: 70\r\n"+
		"From: <sip:alice@example.com>;tag=from-%s\r\n"+
		"To: <sip:bob@example.com>\r\n"+
		"Call-ID: %s\r\n"+
		"CSeq: %d %s\r\n"+
		"Content-Length: %d\r\n\r\n%s",
		method, callID, cseq, method, callID, callID, cseq, method, body, strings.Repeat("b", body)))
}

// response is the response to a request.
func response(to []byte, status string) []byte {
	_, header, _ := strings.Cut(string(to), "\r\n")
	header, _, _ = strings.Cut(header, "\r\n\r\n")
	lines := strings.Split(header, "\r\n")
	kept := lines[:0]
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, "Max-Forwards"), strings.HasPrefix(l, "Content-Length"):
		case strings.HasPrefix(l, "To:") && !strings.HasPrefix(status, "100"):
			kept = append(kept, l+";tag=to")
		default:
			kept = append(kept, l)
		}
	}
	return []byte("SIP/2.0 " + status + "\r\n" + strings.Join(kept, "\r\n") + "\r\nContent-Length: 0\r\n\r\n")
}

var (
	here  = netip.MustParseAddrPort("198.51.100.7:5060")
	there = netip.MustParseAddrPort("192.0.2.1:5060")
)

// in and out have a tap see a datagram.
func in(tap *Tap, b []byte) {
	tap.datagram(time.Now(), &leg{tap.udp, here, there, trace.In}, b, false)
}

func out(tap *Tap, b []byte) {
	tap.datagram(time.Now(), &leg{tap.udp, here, there, trace.Out}, b, false)
}
