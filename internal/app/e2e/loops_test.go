package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// A fleet is a bus with a tap, a db-writer, and a forwarder that changes.
type fleet struct {
	whole          *testing.T // that the processes live as long as
	name           string
	nats           *natsServer
	db             *db
	hep, tcp       string // where the tap listens for HEP,
	sip, bare      string // for SIP with X-Siptrace headers, and for any SIP
	tap, forwarder *process
	in             *sender
}

func startFleet(t *testing.T, name string) *fleet {
	t.Helper()
	f := &fleet{
		whole: t, name: name, nats: startNATS(t), db: database(t),
		hep: freeAddr(t), tcp: freeAddr(t), sip: freeAddr(t), bare: freeAddr(t),
	}
	startWriter(t, f.nats, f.db).ready(t)
	f.startTap(t)
	return f
}

func (f *fleet) startTap(t *testing.T) {
	t.Helper()
	f.tap = program(f.whole, "tap", "--nats", f.nats.url(), "--agent-name", f.name, "--data", f.whole.TempDir(), "--http", loopback+":0",
		"--in", "hep+udp://"+f.hep, "--in", "hep+tcp://"+f.tcp, "--in", "siptrace+udp://"+f.sip, "--in", "siptrace+udp://"+f.bare+"?require=0").ready(t)
	f.in = send(f.whole, "udp", f.hep)
}

// forwards starts a forwarder in place of the one before, which is forgotten: it
// begins with what is new.
func (f *fleet) forwards(t *testing.T, to ...string) {
	t.Helper()
	if f.forwarder != nil {
		f.forwarder.stop(t)
		f.forget(t)
	}
	args := []string{"--nats", f.nats.url(), "--http", loopback + ":0"}
	for _, url := range to {
		args = append(args, "--to", url)
	}
	f.forwarder = program(f.whole, "hep-forwarder", args...).ready(t)
}

// forget removes the durable consumers of forwarders.
func (f *fleet) forget(t *testing.T) {
	t.Helper()
	s, err := f.nats.stream(t).Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	for name := range s.ConsumerNames(t.Context()).Name() {
		if !strings.HasPrefix(name, "fwd-") {
			continue
		}
		if err := s.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// begins sends the first messages of n calls to the tap.
func (f *fleet) begins(kind string, n int) {
	for i := range n {
		p := talk{fmt.Sprintf("%s-%s-%d", kind, f.name, i), "alice", "bob"}.say("INVITE")
		f.in.packet(&p)
	}
}

// kept is how often tap and forwarder have found that a message had been here.
func (f *fleet) kept(t *testing.T) int {
	t.Helper()
	return f.marked(t) + f.known(t) + f.spared(t)
}

// marked are the messages that the tap has known by their marks, or by coming too often.
func (f *fleet) marked(t *testing.T) int {
	t.Helper()
	return int(f.tap.metric(t, "siptrace_tap_hep_dropped_total", "reason", "loop") + f.tap.metric(t, "siptrace_tap_sip_dropped_total", "reason", "loop"))
}

// known are those that it has known again, and copies that it was shown.
func (f *fleet) known(t *testing.T) int {
	t.Helper()
	return int(f.tap.metric(t, "siptrace_tap_events_back_total"))
}

// spared are those that the forwarder has not sent, because a tap of the fleet listens there.
func (f *fleet) spared(t *testing.T) int {
	t.Helper()
	return int(f.forwarder.metric(t, "siptrace_forwarder_events_skipped_total", "reason", "loop"))
}

func (f *fleet) sent(t *testing.T) int {
	t.Helper()
	return int(f.forwarder.metric(t, "siptrace_forwarder_events_sent_total"))
}

// holds fails the test unless of calls that began in a fleet each message is
// stored so many times.
func (f *fleet) holds(t *testing.T, kind, began string, n, times int) {
	t.Helper()
	here := func() (rows map[string]int, total int) {
		rows = make(map[string]int)
		for _, m := range f.db.stored(t)["sip_trace"] {
			if strings.Contains(m, fmt.Sprintf("Call-ID: %s-%s-", kind, began)) {
				rows[m]++
				total++
			}
		}
		return rows, total
	}
	eventually(t, f.name+" has stored what was to be stored", func() bool { _, total := here(); return total >= n*times })
	rows, _ := here()
	if len(rows) != n {
		t.Errorf("%s: %d messages of %s are stored, want %d", f.name, len(rows), began, n)
	}
	for m, got := range rows {
		if got != times {
			t.Errorf("%s: stored %d times, want %d: %q", f.name, got, times, m)
			return
		}
	}
}

// balanced fails the test unless what is stored is what is in the stream.
func (f *fleet) balanced(t *testing.T) {
	t.Helper()
	total := 0
	for _, n := range streamed(t, f.nats) {
		total += n
	}
	f.db.holds(t, total)
}

// goesRound sends the messages of n calls to each fleet and waits until each has
// been kept out so often, and then for one more to go all the way behind them.
func goesRound(t *testing.T, kind string, n, kept int, fleets ...*fleet) {
	t.Helper()
	sum := func() (all int) {
		for _, f := range fleets {
			all += f.kept(t)
		}
		return all
	}
	want := sum() + n*kept*len(fleets)
	for _, f := range fleets {
		f.begins(kind, n)
	}
	eventually(t, fmt.Sprintf("%d are kept out", want), func() bool { return sum() >= want })
	for _, f := range fleets {
		f.begins(kind+"-last", 1)
	}
	want += kept * len(fleets)
	eventually(t, "the last ones are kept out", func() bool { return sum() >= want })
	if got := sum(); got != want {
		t.Errorf("%d are kept out, want %d", got, want)
	}
}

// acquainted sends messages round until the fleets know what they have to know,
// and waits for the end of these.
func acquainted(t *testing.T, knows func(f *fleet) bool, fleets ...*fleet) {
	t.Helper()
	probes, before := 0, 0
	for _, f := range fleets {
		before += f.kept(t)
	}
	for _, f := range fleets {
		eventually(t, "the tap knows its fleet", func() bool {
			for _, f := range fleets {
				f.begins("probe", 1)
				probes++
			}
			return knows(f)
		})
	}
	eventually(t, "all probes are kept out", func() bool {
		kept := 0
		for _, f := range fleets {
			kept += f.kept(t)
		}
		return kept-before >= probes
	})
}

// rounds is how often a message without a time may come again. SIP repeats none
// more than eleven times.
const rounds = 64

// A forwarder that is pointed at the tap that feeds it.
func TestLoop_aForwarderAtItsOwnTapEnds(t *testing.T) {
	const n = 30
	f := startFleet(t, "east")
	f.forwards(t, "hep+udp://"+f.hep)
	acquainted(t, func(f *fleet) bool { return f.marked(t) > 0 }, f)

	t.Run("HEP 3 is known by its mark", func(t *testing.T) {
		f.forwards(t, "hep+udp://"+f.hep, "hep+tcp://"+f.tcp)
		goesRound(t, "marked", n, 2, f)
		f.holds(t, "marked", f.name, n, 1)
		if f.spared(t) > 0 {
			t.Errorf("the forwarder has not sent %d, though they are marked", f.spared(t))
		}
	})
	t.Run("what has no mark is not sent", func(t *testing.T) {
		f.forwards(t, "hep+udp://"+f.hep+"?version=2", "hep+udp://"+f.hep+"?version=1", "hep+udp://"+f.hep+"?mark=0",
			"sip+udp://"+f.sip+"?xheaders=1", "sip:"+f.bare)
		goesRound(t, "unmarked", n, 5, f)
		f.holds(t, "unmarked", f.name, n, 1)
		if f.sent(t) > 0 {
			t.Errorf("%d were sent, want none", f.sent(t))
		}
	})
	for _, tt := range []struct {
		name, kind, to string
		n, times       int
	}{
		{"HEP 3 without its mark", "nomark", "hep+udp://" + f.hep + "?mark=0&taps=1", n, 1},
		{"HEP 2", "hep2", "hep+udp://" + f.hep + "?version=2&taps=1", n, 1},
		{"HEP 1, which has no time", "hep1", "hep+udp://" + f.hep + "?version=1&taps=1", 3, 1 + rounds},
		{"SIP with headers, which do not name the agent", "xheaders", "sip+udp://" + f.sip + "?xheaders=1&taps=1", n, 2},
	} {
		t.Run(tt.name+" ends where it is sent all the same", func(t *testing.T) {
			f.forwards(t, tt.to)
			goesRound(t, tt.kind, tt.n, 1, f)
			f.holds(t, tt.kind, f.name, tt.n, tt.times)
			if f.sent(t) == 0 || f.spared(t) > 0 {
				t.Errorf("the forwarder has sent %d and spared %d, want it to send", f.sent(t), f.spared(t))
			}
		})
	}
	t.Run("SIP without headers is known as a copy by who sends it", func(t *testing.T) {
		f.forwards(t, "sip+udp://"+f.bare+"?taps=1")
		f.tap.stop(t)
		f.startTap(t) // and asks at once who is there
		acquainted(t, func(f *fleet) bool {
			return f.tap.metric(t, "siptrace_tap_events_back_total", "reason", "own copy") > 0
		}, f)
		goesRound(t, "bare", n, 1, f)
		f.holds(t, "bare", f.name, n, 1)
	})
	f.balanced(t)
}

// Two fleets whose forwarders are pointed at each other's taps: each has what
// is its own, and what the other has.
func TestLoop_twoFleetsAtEachOtherEnd(t *testing.T) {
	const n = 20
	east, west := startFleet(t, "east"), startFleet(t, "west")
	east.forwards(t, "hep+udp://"+west.hep)
	west.forwards(t, "hep+udp://"+east.hep)
	acquainted(t, func(f *fleet) bool { return f.marked(t) > 0 }, east, west)
	for _, tt := range []struct {
		name, kind string
		to         func(f *fleet) string
		n          int
		home, away int // times that a message is stored where it began, and in the other fleet
	}{
		{"HEP 3", "marked", func(f *fleet) string { return "hep+udp://" + f.hep }, n, 1, 1},
		{"HEP 3 over TCP", "tcp", func(f *fleet) string { return "hep+tcp://" + f.tcp }, n, 1, 1},
		{"HEP 3 without its mark", "nomark", func(f *fleet) string { return "hep+udp://" + f.hep + "?mark=0" }, n, 1, 1},
		{"HEP 2", "hep2", func(f *fleet) string { return "hep+udp://" + f.hep + "?version=2" }, n, 1, 1},
		{"HEP 1, which has no time", "hep1", func(f *fleet) string { return "hep+udp://" + f.hep + "?version=1" }, 2, 1 + rounds, rounds},
		{"SIP with headers, which do not name the agent", "xheaders", func(f *fleet) string { return "sip+udp://" + f.sip + "?xheaders=1" }, n, 2, 1},
		{"SIP without headers, which has no time", "bare", func(f *fleet) string { return "sip:" + f.bare }, 2, 1 + rounds, rounds},
	} {
		t.Run(tt.name, func(t *testing.T) {
			east.forwards(t, tt.to(west))
			west.forwards(t, tt.to(east))
			goesRound(t, tt.kind, tt.n, 1, east, west)
			east.holds(t, tt.kind, "east", tt.n, tt.home)
			west.holds(t, tt.kind, "west", tt.n, tt.home)
			east.holds(t, tt.kind, "west", tt.n, tt.away)
			west.holds(t, tt.kind, "east", tt.n, tt.away)
		})
	}
	east.balanced(t)
	west.balanced(t)
}
