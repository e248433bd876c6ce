package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// openAddressed makes an Addressed sink for one test.
func openAddressed(t testing.TB, o Options, allowed ...string) (*Addressed, *prometheus.Registry) {
	t.Helper()
	allow, err := ParseAllow(allowed)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	a, err := NewAddressed(allow, o, reg, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return a, reg
}

// to makes the n-th event name destinations.
func to(n int, destinations ...string) trace.Event {
	e := invite(n)
	e.Destinations = destinations
	return e
}

func TestAddressed_sendsEachEventToAllItNames(t *testing.T) {
	udp, sip := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	tcp := listenTCP(t, "127.0.0.1:0", nil, readAll)
	a, reg := openAddressed(t, Options{}, "127.0.0.0/8")
	events := []trace.Event{
		to(0, "hep+udp://"+udp.addr()),
		to(1),
		to(2, "hep+udp://"+udp.addr(), "sip:"+sip.addr(), "hep+tcp://"+tcp.addr()),
		to(3, "sip:"+sip.addr(), "SIP:"+sip.addr()+";transport=udp", "sip+udp://"+sip.addr()), // one place thrice
	}
	flagged := to(4, "hep+udp://"+udp.addr())
	flagged.Flags = trace.NoDuplicate
	events = append(events, flagged)
	deliver(t, a, events)
	for i, p := range udp.take(t, 2) {
		if want := events[2*i].Payload; string(p.Payload) != string(want) {
			t.Errorf("over UDP got %q, want %q", p.Payload, want)
		}
	}
	for _, want := range events[2:4] {
		if got := sip.next(t).b; string(got) != string(want.Payload) {
			t.Errorf("as SIP got %q, want %q", got, want.Payload)
		}
	}
	tcp.hasOnce(t, events[2:3])
	if n := len(udp.got) + len(sip.got); n != 0 {
		t.Errorf("%d datagrams too many", n)
	}
	for reason, want := range map[string]float64{"no duplicate": 1, "not addressed": 1} {
		if got := metric(t, reg, "events_skipped_total", "addressed", reason); got != want {
			t.Errorf("events_skipped_total{%s} = %v, want %v", reason, got, want)
		}
	}
	if got := metric(t, reg, "events_sent_total", "addressed"); got != 5 {
		t.Errorf("events_sent_total = %v, want 5", got)
	}
	if err := a.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v, want nil", err)
	}
}

func TestAddressed_refusesWhatIsNotAllowedAndSendsTheRest(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	good := "hep+udp://" + c.addr()
	tests := []struct{ name, uri, reason string }{
		{"another address", "hep+udp://127.0.0.2:9060", "destination not allowed"},
		{"a name", "hep+udp://localhost:9060", "destination not allowed"},
		{"metadata service", "hep+tcp://169.254.169.254:80", "destination not allowed"},
		{"a URI that is none", "gopher://127.0.0.1", "bad destination"},
		{"nothing", "", "bad destination"},
		{"files of ours as authority", "hep+tls://127.0.0.1?ca=/etc/passwd", "bad destination"},
		{"files of ours as key", "hep+tls://127.0.0.1?cert=/etc/ssl/a&key=/etc/ssl/b", "bad destination"},
		{"an address of ours", good + "?from=127.0.0.9", "bad destination"},
		{"no mark against loops", good + "?mark=0", "bad destination"},
		{"no guard against loops", good + "?taps=1", "bad destination"},
		{"more destinations inside", good + "?fallback=hep+tcp://127.0.0.1", "bad destination"},
	}
	for _, tt := range badDestinations {
		tests = append(tests, struct{ name, uri, reason string }{"bad: " + tt.name, tt.in, "bad destination"})
	}
	a, reg := openAddressed(t, Options{}, "127.0.0.1")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events := []trace.Event{to(0, good), to(1, good, tt.uri, tt.uri), to(2, good)}
			before := metric(t, reg, "events_rejected_total", "addressed", tt.reason)
			no := rejections(t, a.Write(t.Context(), events))
			if len(no) != 1 || no[0].Index != 1 || no[0].Reason != tt.reason || no[0].Err == nil {
				t.Errorf("rejected %+v, want event 1 for %q with words", no, tt.reason)
			}
			if strings.Contains(no.Error(), "hidden") {
				t.Errorf("the rejection tells a secret: %v", no)
			}
			c.take(t, 3)
			if got := metric(t, reg, "events_rejected_total", "addressed", tt.reason); got <= before {
				t.Errorf("events_rejected_total{%s} = %v, want more than %v", tt.reason, got, before)
			}
		})
	}
}

func TestAddressed_allowsNothingUnlessTold(t *testing.T) {
	a, err := NewAddressed(Allow{}, Options{}, nil, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	no := rejections(t, a.Write(t.Context(), []trace.Event{to(0, "hep+udp://127.0.0.1")}))
	if len(no) != 1 || no[0].Reason != "destination not allowed" {
		t.Errorf("rejected %+v, want it", no)
	}
}

func TestAddressed_passesOnWhatADestinationRejects(t *testing.T) {
	one, two := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	a, _ := openAddressed(t, Options{}, "*")
	both := []string{"hep+udp://" + one.addr(), "hep+udp://" + two.addr()}
	events := []trace.Event{to(0, both...), large(t, 1, 65510), to(2, both...), large(t, 3, 65510)}
	events[1].Destinations, events[3].Destinations = both, both[:1]
	no := rejections(t, a.Write(t.Context(), events))
	if len(no) != 2 || no[0].Index != 1 || no[1].Index != 3 || no[0].Reason != "too long for udp" {
		t.Errorf("rejected %+v, want events 1 and 3, once each", no)
	}
	one.take(t, 2)
	two.take(t, 2)
}

func TestAddressed_sendsAgainOnlyWhereItDidNotArrive(t *testing.T) {
	up := listenUDP(t, "127.0.0.1:0")
	away := closedPort(t, "tcp")
	a, _ := openAddressed(t, Options{GiveUp: time.Hour}, "127.0.0.1")
	events := []trace.Event{
		to(0, "hep+udp://"+up.addr(), "hep+tcp://"+away),
		large(t, 1, 65510),
		to(2, "hep+tcp://"+away),
	}
	events[1].Destinations = []string{"hep+udp://" + up.addr()}
	for range 3 {
		if err := a.Write(t.Context(), events); err == nil || errors.Is(err, trace.ErrPermanent) {
			t.Fatalf("Write error = %v, want one to be tried again", err)
		}
	}
	c := listenTCP(t, away, nil, readAll)
	for {
		err := a.Write(t.Context(), events)
		var no trace.Rejected
		if errors.As(err, &no) {
			if len(no) != 1 || no[0].Index != 1 {
				t.Errorf("rejected %+v, want event 1 only", no)
			}
			break
		}
		if err == nil {
			t.Fatal("Write error = nil, want event 1 rejected in the end")
		}
	}
	c.hasOnce(t, []trace.Event{events[0], events[2]})
	up.take(t, 1)
	if n := len(up.got); n != 0 {
		t.Errorf("%d datagrams came again where they had arrived", n)
	}
	deliver(t, a, events[:1]) // a replay is a delivery of its own
	up.take(t, 1)
}

func TestAddressed_givesUpADestinationUntilItIsBack(t *testing.T) {
	up := listenUDP(t, "127.0.0.1:0")
	away := closedPort(t, "tcp")
	a, reg := openAddressed(t, Options{GiveUp: time.Millisecond}, "127.0.0.1")
	var no trace.Rejected
	eventually(t, "the destination is given up", func() bool {
		return errors.As(a.Write(t.Context(), []trace.Event{to(0, "hep+tcp://"+away), to(1, "hep+udp://"+up.addr())}), &no)
	})
	if len(no) != 1 || no[0].Index != 0 || no[0].Reason != "destination unreachable" || no[0].Err == nil {
		t.Errorf("rejected %+v, want event 0 and why", no)
	}
	up.take(t, 1)

	tried := metric(t, reg, "errors_total", "dial")
	if err := a.Write(t.Context(), []trace.Event{to(2, "hep+tcp://"+away)}); !errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write error = %v, want it rejected at once", err)
	}
	if got := metric(t, reg, "errors_total", "dial"); got != tried {
		t.Errorf("it was tried again at once")
	}

	c := listenTCP(t, away, nil, readAll)
	r := a.routes.to[parse(t, "hep+tcp://"+away)]
	r.again = time.Now() // as after some seconds
	events := []trace.Event{to(3, "hep+tcp://"+away), to(4, "hep+tcp://"+away)}
	deliver(t, a, events)
	c.hasOnce(t, events)
}

func TestAddressed_triesOneThatIsGivenUpForAMomentOnly(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts; nobody shakes hands
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	up, away := listenUDP(t, "127.0.0.1:0"), "hep+tls://"+silent.Addr().String()
	a, _ := openAddressed(t, Options{DialTimeout: time.Hour}, "127.0.0.1")
	r, err := a.routes.take(parse(t, away))
	if err != nil {
		t.Fatal(err)
	}
	r.bad(errNotConnected, time.Now().Add(-time.Hour))
	a.routes.give(r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	no := rejections(t, a.Write(ctx, []trace.Event{to(0, away), to(1, "hep+udp://"+up.addr())}))
	if len(no) != 1 || no[0].Index != 0 || no[0].Reason != reasonUnreachable {
		t.Errorf("rejected %+v, want event 0", no)
	}
	up.take(t, 1)
}

func TestAddressed_keepsFewDestinationsOpen(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	a, _ := openAddressed(t, Options{}, "127.0.0.1")
	var events []trace.Event
	for i := range 3 * maxRoutes {
		events = append(events, to(i, fmt.Sprintf("hep+udp://%s?capture-id=%d", c.addr(), i)))
	}
	for part := range slices.Chunk(events, socketful) {
		deliver(t, a, part)
		c.take(t, len(part))
	}
	if got := a.routes.size(); got != maxRoutes {
		t.Errorf("%d destinations are open, want %d", got, maxRoutes)
	}
}

func TestAddressed_remembersFewTexts(t *testing.T) {
	a, _ := openAddressed(t, Options{})
	for i := range 3 * maxPlans {
		if err := a.Write(t.Context(), []trace.Event{to(i, fmt.Sprintf("nowhere-%d", i))}); !errors.Is(err, trace.ErrPermanent) {
			t.Fatalf("Write error = %v, want it rejected", err)
		}
	}
	if got := len(a.plans); got > maxPlans {
		t.Errorf("%d texts are remembered, want at most %d", got, maxPlans)
	}
}

func TestAddressed_closesWhatIsNotUsed(t *testing.T) {
	c := listenTCP(t, "127.0.0.1:0", nil, readAll)
	a, reg := openAddressed(t, Options{IdleClose: 20 * time.Millisecond}, "127.0.0.1")
	deliver(t, a, []trace.Event{to(0, "hep+tcp://"+c.addr())})
	eventually(t, "it is closed", func() bool { return a.routes.size() == 0 && metric(t, reg, "connections") == 0 })
	deliver(t, a, []trace.Event{to(1, "hep+tcp://"+c.addr())})
	eventually(t, "both came", func() bool { return len(c.payloads()) == 2 })
}

func TestAddressed_endsWithClose(t *testing.T) {
	silent := listenTCP(t, "127.0.0.1:0", nil, readNothing)
	a, _ := openAddressed(t, Options{WriteTimeout: time.Hour}, "*")
	events := make([]trace.Event, 30000)
	for i := range events {
		events[i] = to(i, "hep+tcp://"+silent.addr())
	}
	done := make(chan error, 1)
	go func() { done <- a.Write(context.Background(), events) }()
	eventually(t, "the Write is under way", func() bool { return silent.accepted() == 1 })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write error = %v, want %v", err, net.ErrClosed)
	}
	if err := a.Write(t.Context(), events[:1]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write error = %v, want %v", err, net.ErrClosed)
	}
}

func TestAllow(t *testing.T) {
	allow, err := ParseAllow([]string{"192.0.2.0/24", "10.0.0.1", "2001:db8::/32", "[fd00::1]", "homer.example.com", " *.voip.example.com ", "HEP.example.org."})
	if err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]bool{
		"sip:192.0.2.1":                       true,
		"sip:192.0.3.1":                       false,
		"sip:10.0.0.1":                        true,
		"sip:10.0.0.2":                        false,
		"sip:[::ffff:10.0.0.1]":               true,
		"sip:[2001:db8::7]":                   true,
		"sip:[2001:db9::7]":                   false,
		"sip:[fd00::1]":                       true,
		"sip:homer.example.com":               true,
		"sip:HOMER.example.com.":              true,
		"sip:evilhomer.example.com":           false,
		"sip:homer.example.com.evil.test":     false,
		"sip:example.com":                     false,
		"sip:a.voip.example.com":              true,
		"sip:a.b.voip.example.com":            true,
		"sip:voip.example.com":                false,
		"sip:evilvoip.example.com":            false,
		"sip:hep.example.org":                 true,
		"sip:localhost":                       false,
		"hep+tls://a.voip.example.com":        true,
		"hep+udp://[2001:db8::1%25eth0]:9060": true,
	} {
		if got := allow.Allows(parse(t, uri).Host); got != want {
			t.Errorf("Allows(%s) = %t, want %t", uri, got, want)
		}
	}
	everything, err := ParseAllow([]string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	if !everything.Allows("anywhere.test") || !everything.Allows("192.0.2.1") {
		t.Error("* does not allow everything")
	}
	if (Allow{}).Allows("127.0.0.1") {
		t.Error("the zero Allow allows something")
	}
}

func TestParseAllow_refusesWhatCannotBeMeant(t *testing.T) {
	for _, s := range []string{
		"", "192.0.2.1/24", "192.0.2.0/33", "*.*", "*example.com", "a.*.b", "**", "*.192.0.2.1", "http://homer", "homer:9060",
		"127.1", "0.0.0.0", "fe80::1%eth0", "a b",
	} {
		if _, err := ParseAllow([]string{"10.0.0.1", s}); err == nil {
			t.Errorf("ParseAllow(%q) error = nil, want one", s)
		}
	}
}
