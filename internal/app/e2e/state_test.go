package e2e

import (
	"strings"
	"testing"
	"time"
)

// switchBound is how long a switch may take on a busy machine. It takes
// milliseconds; a tap that did not hear of it learns of it after 15 s.
const switchBound = 5 * time.Second

// A switched is a tap whose state is watched from outside.
type switched struct {
	*process
	addr, data string
	sender     *sender
}

// startTap starts a tap that listens for HEP over UDP.
func startTap(t *testing.T, nats, name, addr, data string) *process {
	t.Helper()
	return program(t, "tap", "--nats", nats, "--in", "hep+udp://"+addr, "--agent-name", name,
		"--data", data, "--http", loopback+":0")
}

func startSwitched(t *testing.T, nats, name string) *switched {
	t.Helper()
	s := &switched{addr: freeAddr(t), data: t.TempDir()}
	s.process = startTap(t, nats, name, s.addr, s.data)
	s.awaitSocket(t)
	return s
}

func (s *switched) awaitSocket(t *testing.T) {
	t.Helper()
	s.logged(t, "source started")
	s.sender = send(t, "udp", s.addr)
}

// traces sends one message and reports whether the tap took it for the bus.
func (s *switched) traces(t *testing.T) (taken bool) {
	t.Helper()
	counts := func() (refused, accepted float64) {
		refused = s.metric(t, "siptrace_tap_events_unselected_total")
		accepted = s.metric(t, "siptrace_tap_published_events_total") + s.metric(t, "siptrace_tap_buffer_bytes")
		return refused, accepted
	}
	refusedBefore, acceptedBefore := counts()
	s.sender.invites(1)
	eventually(t, "the message is published or refused", func() bool {
		refused, accepted := counts()
		taken = accepted > acceptedBefore
		return taken || refused > refusedBefore
	})
	return taken
}

// awaitTracing waits until every tap is on, or off, and returns how long that took.
func awaitTracing(t *testing.T, taps []*switched, on bool) time.Duration {
	t.Helper()
	began := time.Now()
	for _, s := range taps {
		eventually(t, "the tap follows", func() bool { return s.traces(t) == on })
	}
	return time.Since(began)
}

// switchTrace runs ctl trace and checks its one word on standard output.
func switchTrace(t *testing.T, nats, verb, word string, flags ...string) {
	t.Helper()
	if got := must(t, "ctl", append([]string{"trace", verb, "--nats", nats}, flags...)...); got != word+"\n" {
		t.Fatalf("ctl trace %s printed %q, want %q", verb, got, word+"\n")
	}
}

func TestTrace_switchesEveryTapAtOnceAndForGood(t *testing.T) {
	nats := startNATS(t)
	var taps []*switched
	for _, name := range []string{"edge1", "edge2", "edge3"} {
		taps = append(taps, startSwitched(t, nats.url(), name))
	}
	for _, s := range taps {
		s.ready(t)
	}
	switchTrace(t, nats.url(), "check", "Enabled")
	awaitTracing(t, taps, true)

	switchTrace(t, nats.url(), "off", "Disabled", "--reason", "maintenance")
	if took := awaitTracing(t, taps, false); took > switchBound {
		t.Errorf("the taps took %v to stop, want %v at most", took, switchBound)
	}
	switchTrace(t, nats.url(), "check", "Disabled")
	for _, s := range taps {
		for range 5 {
			if s.traces(t) {
				t.Errorf("%s traces while tracing is off", s.addr)
			}
		}
	}

	switchTrace(t, nats.url(), "on", "Enabled")
	if took := awaitTracing(t, taps, true); took > switchBound {
		t.Errorf("the taps took %v to start again, want %v at most", took, switchBound)
	}
	switchTrace(t, nats.url(), "check", "Enabled")
	switchTrace(t, nats.url(), "off", "Disabled")
	awaitTracing(t, taps, false)

	t.Run("for a time", func(t *testing.T) {
		switchTrace(t, nats.url(), "on", "Enabled", "--for", "5s") // long enough to see it on every tap
		awaitTracing(t, taps, true)
		awaitTracing(t, taps, false) // by itself
		switchTrace(t, nats.url(), "check", "Disabled")
	})

	t.Run("across a restart of NATS", func(t *testing.T) {
		nats.stop()
		for _, s := range taps {
			eventually(t, "the tap notices", func() bool { code, _ := s.ask(t, "/readyz"); return code != 200 })
			if s.traces(t) {
				t.Errorf("%s traces again because NATS is away", s.addr)
			}
		}
		nats.start(t)
		for _, s := range taps {
			s.ready(t)
			if s.traces(t) {
				t.Errorf("%s traces again because NATS is back", s.addr)
			}
		}
		switchTrace(t, nats.url(), "check", "Disabled")
	})

	t.Run("across a restart of a tap", func(t *testing.T) {
		s := taps[0]
		s.stop(t)
		s.process = startTap(t, nats.url(), "edge1", s.addr, s.data)
		s.awaitSocket(t)
		if s.traces(t) {
			t.Error("a tap that knew that tracing is off traces when it starts")
		}
	})

	t.Run("by a tap that never ran before", func(t *testing.T) {
		fresh := startSwitched(t, nats.url(), "edge4")
		awaitTracing(t, []*switched{fresh}, false)
	})

	t.Run("by a tap that starts without NATS", func(t *testing.T) {
		s := taps[1]
		nats.stop()
		s.stop(t)
		s.process = startTap(t, nats.url(), "edge2", s.addr, s.data)
		s.awaitSocket(t)
		if code, body := s.ask(t, "/readyz"); code != 503 || !strings.Contains(body, "nats: ") {
			t.Errorf("/readyz = %d %q, want 503 and nats", code, body)
		}
		for range 5 {
			if s.traces(t) {
				t.Error("a tap that knew that tracing is off traces while NATS is away")
			}
		}
		nats.start(t)
		s.ready(t)
		switchTrace(t, nats.url(), "on", "Enabled")
		awaitTracing(t, []*switched{s}, true)
	})
}
