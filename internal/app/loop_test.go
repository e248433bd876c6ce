package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/testport"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A service is one that runs until the test ends, with its metrics.
type service struct{ reg *prometheus.Registry }

// serve runs a module.
func serve(t *testing.T, module fx.Option) *service {
	t.Helper()
	log := quietLog()
	s := &service{}
	built := make(chan struct{})
	background(t, func(ctx context.Context) {
		code := Run(ctx, log, Base(log), fx.Populate(&s.reg), fx.Invoke(func() { close(built) }), module)
		if code != ExitDone {
			t.Errorf("a service ended with code %d", code)
		}
	})
	<-built
	return s
}

// count sums up the counters of a name that have the label values given.
func (s *service) count(t *testing.T, name string, labels ...string) int {
	t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if !slices.ContainsFunc(labels, func(want string) bool { return !slices.Contains(values, want) }) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return int(sum)
}

// kept is how many events a tap has left out because they had been here.
func (s *service) kept(t *testing.T) int {
	t.Helper()
	return s.count(t, "siptrace_tap_hep_dropped_total", "loop") + s.count(t, "siptrace_tap_sip_dropped_total", "loop") +
		s.count(t, "siptrace_tap_events_back_total")
}

// freeAddr is an address of the loopback that nobody uses, for UDP and TCP.
func freeAddr(t *testing.T) string { return testport.Addr(t, 16_000, 2000) }

// A fleetBed is a bus with a tap that takes HEP and plain SIP, and a tail.
type fleetBed struct {
	url      string
	hep, sip string // where the tap listens
	tap      *service
	conn     *bus.Conn
	tail     *tail
}

// newFleet starts one; what the tap gets is of agent 7 unless it says so.
func newFleet(t *testing.T, name string, more ...func(*TapFlags)) *fleetBed {
	t.Helper()
	b := newBus(t)
	b.startTap(t, name, more...)
	return b
}

// newBus is a bed whose tap is still to be started.
func newBus(t *testing.T) *fleetBed {
	t.Helper()
	b := &fleetBed{url: startNATS(t).ClientURL(), hep: freeAddr(t), sip: freeAddr(t)}
	b.conn = dial(t, b.url)
	b.tail = startTail(t, b.conn)
	return b
}

// startTap starts the tap of the bed.
func (b *fleetBed) startTap(t *testing.T, name string, more ...func(*TapFlags)) {
	t.Helper()
	flags := TapFlags{
		In: []string{"hep+udp://" + b.hep, "siptrace+udp://" + b.sip}, Mode: "all", AgentName: name,
		Buffer: 8 << 20, Compress: bus.CompressS2, Data: t.TempDir(),
	}
	for _, change := range more {
		change(&flags)
	}
	b.tap = serve(t, TapModule(flags, bus.Options{URL: b.url, Name: "tap-" + name}, bus.StreamConfig{}))
	eventually(t, "the tap is there", func() bool {
		return slices.ContainsFunc(taps(t, b.conn), func(n bus.NodeStatus) bool { return n.Service == "tap" })
	})
}

// forward starts a forwarder of the fleet.
func (b *fleetBed) forward(t *testing.T, to ...string) *service {
	t.Helper()
	flags := ForwarderFlags{To: to, Linger: Duration(time.Millisecond), Start: "all"}
	return serve(t, ForwarderModule(flags, bus.Options{URL: b.url, Name: "forwarder"}, bus.StreamConfig{}))
}

// calls makes n messages, each of a call of its own.
func calls(kind string, n int) []trace.Event {
	var list []trace.Event
	for i := range n {
		list = append(list, talk{kind + "-" + strconv.Itoa(i), "alice", "bob"}.say("INVITE"))
	}
	return list
}

// settles waits until so many events have been left out by the tap, and then
// for one more message to go all the way round, so that whatever was on the
// way behind the others has arrived. It returns how often each message is in
// the stream, that one left out.
func (b *fleetBed) settles(t *testing.T, left func() int, want int, rounds int) map[string]int {
	t.Helper()
	eventually(t, fmt.Sprintf("%d are left out", want), func() bool { return left() >= want })
	sender(t, b.hep)(calls("last", 1))
	eventually(t, "one more goes round and is left out", func() bool { return left() >= want+rounds })
	if got := left(); got != want+rounds {
		t.Errorf("%d left out, want %d", got, want+rounds)
	}
	stream := b.tail.calls()
	eventually(t, "the last is in the stream", func() bool { stream = b.tail.calls(); return stream["last-0"] > 0 })
	delete(stream, "last-0")
	return stream
}

func wantEach(t *testing.T, stream map[string]int, calls, times int) {
	t.Helper()
	if len(stream) != calls {
		t.Errorf("%d messages in the stream, want %d", len(stream), calls)
	}
	for id, n := range stream {
		if n != times {
			t.Errorf("%s is in the stream %d times, want %d", id, n, times)
			return
		}
	}
}

func TestLoop_aForwarderThatFeedsItsTapFeedsNothing(t *testing.T) {
	const n = 50
	t.Run("HEP 3 is marked, and left at the tap", func(t *testing.T) {
		b := newFleet(t, "edge")
		b.forward(t, "hep+udp://"+b.hep)
		sender(t, b.hep)(calls("a", n))
		wantEach(t, b.settles(t, func() int { return b.tap.kept(t) }, n, 1), n, 1)
		if got := b.tap.count(t, "siptrace_tap_hep_dropped_total", "loop"); got == 0 {
			t.Error("none was left out for its mark")
		}
	})
	for _, to := range []string{"hep+udp://HEP?version=2", "hep+udp://HEP?version=1", "hep+udp://HEP?mark=0", "sip+udp://SIP?xheaders=1", "sip:SIP"} {
		t.Run(to+" is not even sent", func(t *testing.T) {
			b := newFleet(t, "edge")
			f := b.forward(t, strings.NewReplacer("HEP", b.hep, "SIP", b.sip).Replace(to))
			sender(t, b.hep)(calls("a", n))
			skipped := func() int { return f.count(t, "siptrace_forwarder_events_skipped_total", "loop") }
			wantEach(t, b.settles(t, skipped, n, 1), n, 1)
			if got := f.count(t, "siptrace_forwarder_events_sent_total"); got != 0 {
				t.Errorf("%d sent, want none", got)
			}
		})
	}
}

func TestLoop_whatGetsThroughAllTheSameEnds(t *testing.T) {
	t.Run("HEP 2 is known again", func(t *testing.T) {
		b := newFleet(t, "edge")
		b.forward(t, "hep+udp://"+b.hep+"?version=2&taps=1")
		sender(t, b.hep)(calls("a", 50))
		wantEach(t, b.settles(t, func() int { return b.tap.kept(t) }, 50, 1), 50, 1)
	})
	t.Run("plain SIP comes once from the tap's own name, and is known from then on", func(t *testing.T) {
		b := newFleet(t, "edge")
		b.forward(t, "sip+udp://"+b.sip+"?xheaders=1&taps=1")
		sender(t, b.hep)(calls("a", 50))
		wantEach(t, b.settles(t, func() int { return b.tap.kept(t) }, 50, 1), 50, 2)
	})
	t.Run("HEP 1 has no time, and comes no more often than SIP repeats itself", func(t *testing.T) {
		const rounds = 64
		b := newFleet(t, "edge")
		b.forward(t, "hep+udp://"+b.hep+"?version=1&taps=1")
		sender(t, b.hep)(calls("a", 3))
		wantEach(t, b.settles(t, func() int { return b.tap.kept(t) }, 3, 1), 3, 1+rounds)
	})
	t.Run("plain SIP without headers likewise", func(t *testing.T) {
		const rounds = 64
		b := newFleet(t, "edge", func(f *TapFlags) { f.In[1] += "?require=0" })
		b.forward(t, "sip+udp://"+b.sip+"?taps=1")
		sender(t, b.hep)(calls("a", 3))
		// The first round has the addresses of the call, the others those of the sockets.
		wantEach(t, b.settles(t, func() int { return b.tap.kept(t) }, 3, 1), 3, 1+rounds)
	})
}

// Two fleets that feed each other: each keeps what is its own.
func TestLoop_twoFleetsInARing(t *testing.T) {
	const n = 50
	for _, query := range []string{"", "?mark=0"} {
		t.Run("HEP 3"+query, func(t *testing.T) {
			east, west := newFleet(t, "east"), newFleet(t, "west")
			east.forward(t, "hep+udp://"+west.hep+query)
			west.forward(t, "hep+udp://"+east.hep+query)
			sender(t, east.hep)(calls("east", n))
			sender(t, west.hep)(calls("west", n))
			left := func() int { return east.tap.kept(t) + west.tap.kept(t) }
			wantEach(t, east.settles(t, left, 2*n, 1), 2*n, 1)
			eventually(t, "the west has all", func() bool { return len(west.tail.calls()) == 2*n+1 })
			stream := west.tail.calls()
			delete(stream, "last-0")
			wantEach(t, stream, 2*n, 1)
		})
	}
}

// Two forwarders of one fleet, each at the other's tap.
func TestLoop_twoForwardersAtTwoTaps(t *testing.T) {
	const n = 50
	b := newFleet(t, "edge1")
	second := freeAddr(t)
	flags := TapFlags{In: []string{"hep+udp://" + second}, Mode: "all", AgentName: "edge2", Buffer: 8 << 20, Compress: bus.CompressS2, Data: t.TempDir()}
	other := serve(t, TapModule(flags, bus.Options{URL: b.url, Name: "tap-edge2"}, bus.StreamConfig{}))
	eventually(t, "both taps are there", func() bool { return len(taps(t, b.conn)) == 2 })
	// Until a tap knows which fleet it is of, what comes passes once.
	eventually(t, "both taps know their fleet", func() bool {
		probe := b.marked(t)
		for _, addr := range []string{b.hep, second} {
			sendTo(t, addr, probe)
		}
		return b.tap.kept(t) > 0 && other.kept(t) > 0
	})
	before := b.tap.kept(t) + other.kept(t)
	b.forward(t, "hep+udp://"+b.hep)
	b.forward(t, "hep+udp://"+second)
	sender(t, b.hep)(calls("a", n))
	eventually(t, "all are left out by both", func() bool { return b.tap.kept(t)+other.kept(t) >= before+2*n })
	var stream map[string]int
	eventually(t, "all are in the stream", func() bool {
		stream = b.tail.calls()
		delete(stream, "") // the probes
		return len(stream) == n
	})
	wantEach(t, stream, n, 1)
}

// marked is a packet that has been in the fleet.
func (b *fleetBed) marked(t *testing.T) []byte {
	t.Helper()
	fleet, err := b.conn.Fleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := hep.Packet{Version: 3, Payload: []byte("probe")}
	p.Private = hep.AppendChunk(nil, trace.Vendor, trace.ChunkOrigin, []byte(fleet))
	packet, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func sendTo(t *testing.T, addr string, packet []byte) {
	t.Helper()
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(packet); err != nil {
		t.Fatal(err)
	}
}

// A collector that counts what comes.
type collector struct {
	addr string
	mu   sync.Mutex
	got  int
}

func collect(t *testing.T) *collector {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: conn.LocalAddr().String()}
	background(t, func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		buf := make([]byte, 65535)
		for {
			if _, _, err := conn.ReadFrom(buf); err != nil {
				return
			}
			c.mu.Lock()
			c.got++
			c.mu.Unlock()
		}
	})
	return c
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got
}

// Whoever captures packets on a forwarder's machine sees its copies of SIP
// messages go out, and reports them.
func TestLoop_copiesThatAreCapturedAreKnown(t *testing.T) {
	const n = 20
	b, to := newBus(t), collect(t)
	b.forward(t, "sip:"+to.addr)
	eventually(t, "the forwarder tells how it sends", func() bool {
		nodes := taps(t, b.conn)
		return len(nodes) == 1 && len(nodes[0].Sends) == 1
	})
	b.startTap(t, "edge")
	sender(t, b.hep)(calls("a", n))
	eventually(t, "the copies are out", func() bool { return to.count() == n })
	eventually(t, "the tap has heard of the forwarder", func() bool {
		copies := calls("copy", 1)
		copies[0].Src, copies[0].Dst = addrPort(t, "127.0.0.1:40000"), addrPort(t, to.addr)
		sender(t, b.hep)(copies)
		return b.tap.count(t, "siptrace_tap_events_back_total", "own copy") > 0
	})
	known := b.tap.count(t, "siptrace_tap_events_back_total", "own copy")
	copies := calls("a", n)
	for i := range copies {
		copies[i].Src, copies[i].Dst = addrPort(t, "127.0.0.1:40000"), addrPort(t, to.addr)
	}
	sender(t, b.hep)(copies)
	elsewhere := calls("elsewhere", 1) // to the same port, from another machine: nobody's copy
	elsewhere[0].Src, elsewhere[0].Dst = addrPort(t, "192.0.2.1:5060"), addrPort(t, to.addr)
	sender(t, b.hep)(elsewhere)
	eventually(t, "all copies are left out", func() bool {
		return b.tap.count(t, "siptrace_tap_events_back_total", "own copy") >= known+n
	})
	eventually(t, "and nothing else", func() bool { return b.tail.calls()["elsewhere-0"] == 1 })
	if got := b.tail.calls()["a-0"]; got != 1 {
		t.Errorf("a-0 is in the stream %d times, want once", got)
	}
}

func addrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
