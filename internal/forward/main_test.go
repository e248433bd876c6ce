package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// patience is how long a test waits for what has to happen.
const patience = time.Minute

// invite makes the n-th of many events, of 700 bytes or so.
func invite(n int) trace.Event {
	payload := fmt.Sprintf("INVITE sip:bob@example.com SIP/2.0\r\n"+
		"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-%d\r\n"+
		"From: \"Alice\" <sip:alice@example.com>;tag=a%d\r\n"+
		"To: <sip:bob@example.com>\r\n"+
		"Call-ID: call-%d@example.com\r\n"+
		"CSeq: 1 INVITE\r\n"+
		"Contact: <sip:alice@192.0.2.1:5060>\r\n"+
		"Max-Forwards: 70\r\n"+
		"User-Agent: test\r\n"+
		"Content-Type: application/sdp\r\n"+
		"Content-Length: 170\r\n\r\n"+
		"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 30000 RTP/AVP 0 8 101\r\n"+
		"a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n", n, n, n)
	e := trace.Event{
		Time:      time.Date(2026, 3, 1, 12, 0, 0, n*1000, time.UTC),
		Agent:     trace.Agent{ID: 2001, Name: "edge-1"},
		Transport: trace.UDP,
		Src:       netip.MustParseAddrPort("192.0.2.1:5060"),
		Dst:       netip.MustParseAddrPort("192.0.2.2:5060"),
		Direction: trace.In,
		Type:      trace.TypeSIP,
		Payload:   []byte(payload),
	}
	e.Identify()
	return e
}

func invites(n int) []trace.Event {
	events := make([]trace.Event, n)
	for i := range events {
		events[i] = invite(i)
	}
	return events
}

// parse is ParseDestination for what is known to be right.
func parse(t testing.TB, s string) Destination {
	t.Helper()
	d, err := ParseDestination(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// opened is a sink with its metrics.
type opened struct {
	Sink
	d   Destination
	reg *prometheus.Registry
}

// openSink opens the sink of a destination for one test.
func openSink(t testing.TB, uri string, o Options) opened {
	t.Helper()
	d := parse(t, uri)
	reg := prometheus.NewRegistry()
	s, err := Open(d, o, reg, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return opened{s, d, reg}
}

// metric reads a metric of siptrace_forwarder_ that has the labels given.
func metric(t testing.TB, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "siptrace_forwarder_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := make(map[string]bool)
			for _, l := range m.GetLabel() {
				have[l.GetValue()] = true
			}
			all := true
			for _, l := range labels {
				all = all && have[l]
			}
			if all {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// deliver writes events as a consumer does: again, until that is allowed to end.
func deliver(t testing.TB, s trace.Sink, events []trace.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := s.Write(ctx, events)
		if err == nil {
			return
		}
		if errors.Is(err, trace.ErrPermanent) || ctx.Err() != nil {
			t.Fatalf("Write error = %v, want one that can be retried, and an end to it", err)
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// rejections is the error of Write as the rejections it has to be.
func rejections(t testing.TB, err error) trace.Rejected {
	t.Helper()
	var no trace.Rejected
	if !errors.As(err, &no) {
		t.Fatalf("Write error = %v, want trace.Rejected", err)
	}
	return no
}

func TestOpen_manyDestinationsShareOneRegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	for _, uri := range []string{"hep+udp://127.0.0.1:1", "hep+tcp://127.0.0.1:1", "sip:127.0.0.1:1"} {
		s, err := Open(parse(t, uri), Options{}, reg, discard)
		if err != nil {
			t.Fatalf("open %s: %v", uri, err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close %s: %v", uri, err)
		}
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("metric %s: %s", p.Metric, p.Text)
	}
}
