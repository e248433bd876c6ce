package forward

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// fleet is a guard whose taps can be told.
type fleet struct {
	origin []byte

	mu   sync.Mutex
	taps map[endpoint]bool
}

type endpoint struct {
	network string
	addr    netip.AddrPort
}

func newFleet(origin string) *fleet {
	return &fleet{origin: []byte(origin), taps: make(map[endpoint]bool)}
}

func (f *fleet) Origin() []byte { return f.origin }

func (f *fleet) Refuse(network string, to netip.AddrPort) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.taps[endpoint{network, to}] {
		return errors.New("a tap of ours")
	}
	return nil
}

func (f *fleet) listens(network, addr string, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taps[endpoint{network, netip.MustParseAddrPort(addr)}] = yes
}

func TestGuard_marksHEP3BehindEverythingElse(t *testing.T) {
	tests := []struct {
		uri    string
		origin string
		marked bool
	}{
		{"hep+udp://%", "home", true},
		{"hep+udp://%?mark=1", "home", true},
		{"hep+udp://%?mark=0", "home", false},
		{"hep+udp://%", "", false},
		{"hep+udp://%?version=1", "home", false},
		{"hep+udp://%?version=2", "home", false},
		{"sip+udp://%?xheaders=1", "home", false},
	}
	for _, tt := range tests {
		t.Run(tt.uri+" "+tt.origin, func(t *testing.T) {
			c := listenUDP(t, "127.0.0.1:0")
			uri := strings.Replace(tt.uri, "%", c.addr(), 1)
			plain, guarded := openSink(t, uri, Options{}), openSink(t, uri, Options{Guard: newFleet(tt.origin)})
			deliver(t, plain, invites(1))
			want := c.next(t).b
			deliver(t, guarded, invites(1))
			if tt.marked {
				want = hep.AppendChunk(want, trace.Vendor, trace.ChunkOrigin, []byte(tt.origin))
				if err := hep.PatchLength(want); err != nil {
					t.Fatal(err)
				}
			}
			if got := c.next(t).b; !bytes.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestGuard_marksNothingThatHasNoRoom(t *testing.T) {
	enc := newHEPEncoder(parse(t, "hep+tcp://127.0.0.1"), newFleet("home"))
	e := invite(0)
	e.Payload = bytes.Repeat([]byte("x"), hep.MaxSize-200)
	for len(e.Payload) < hep.MaxSize {
		before := []byte("before")
		got, err := enc.append(before, &e)
		if err != nil {
			return // too long even without the mark
		}
		p, err := hep.Decode(got[len(before):])
		if err != nil || len(p.Payload) != len(e.Payload) {
			t.Fatalf("payload of %d bytes: %d, %v", len(e.Payload), len(p.Payload), err)
		}
		e.Payload = append(e.Payload, 'x')
	}
	t.Error("no payload was too long")
}

func TestGuard_tellsWhereElseAnEventHasBeen(t *testing.T) {
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr(), Options{Guard: newFleet("home")})
	e := invite(0)
	e.Chunks = hep.AppendChunk(nil, trace.Vendor, trace.ChunkOrigin, []byte("far"))
	deliver(t, s, []trace.Event{e})
	var been []string
	for chunk, err := range hep.Chunks(c.next(t).b) {
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Vendor == trace.Vendor && chunk.Type == trace.ChunkOrigin {
			been = append(been, string(chunk.Body))
		}
	}
	if got := strings.Join(been, " "); got != "far home" {
		t.Errorf("has been in %q, want %q", got, "far home")
	}
}

func TestGuard_sendsNothingThatHasBeenHere(t *testing.T) {
	for _, scheme := range []string{"hep+udp", "hep+udp?version=2", "hep+tcp", "sip+udp"} {
		t.Run(scheme, func(t *testing.T) {
			name, query, _ := strings.Cut(scheme, "?")
			udp, tcp := listenUDP(t, "127.0.0.1:0"), listenTCP(t, "127.0.0.1:0", nil, readAll)
			addr := udp.addr()
			if name == "hep+tcp" {
				addr = tcp.addr()
			}
			s := openSink(t, name+"://"+addr+"?"+query, Options{Guard: newFleet("home")})
			events := invites(3)
			events[1].Chunks = hep.AppendChunk(nil, trace.Vendor, trace.ChunkOrigin, []byte("home"))
			deliver(t, s, events)
			if got := metric(t, s.reg, "events_skipped_total", "loop"); got != 1 {
				t.Errorf("%v skipped, want 1", got)
			}
			if got := metric(t, s.reg, "events_sent_total"); got != 2 {
				t.Errorf("%v sent, want 2", got)
			}
		})
	}
}

func TestGuard_sendsNothingToATapOfTheFleet(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			guard := newFleet("home")
			c, tcp := listenUDP(t, "127.0.0.1:0"), listenTCP(t, "127.0.0.1:0", nil, readAll)
			addr := c.addr()
			if network == "tcp" {
				addr = tcp.addr()
			}
			count := func() float64 { return 0 }
			if network == "udp" {
				count = func() float64 { return float64(len(c.got)) }
			} else {
				count = func() float64 { return float64(len(tcp.payloads())) }
			}
			guard.listens(network, addr, true)
			s := openSink(t, "hep+"+network+"://"+addr+"?mark=0", Options{Guard: guard})
			for range 3 {
				deliver(t, s, invites(200))
			}
			if got := metric(t, s.reg, "events_skipped_total", "loop"); got != 600 {
				t.Errorf("%v skipped, want 600", got)
			}
			if got := metric(t, s.reg, "events_sent_total") + metric(t, s.reg, "bytes_sent_total") + metric(t, s.reg, "connections"); got != 0 {
				t.Errorf("%v events, bytes and connections, want none", got)
			}
			if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "a tap of ours") {
				t.Errorf("Check() = %v, want it to say why nothing is sent", err)
			}

			guard.listens(network, addr, false) // the tap is gone
			deliver(t, s, invites(2))
			eventually(t, "events come", func() bool { return count() == 2 })
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("Check() = %v, want nil", err)
			}

			guard.listens(network, addr, true) // and is back
			deliver(t, s, invites(5))
			if got := metric(t, s.reg, "events_skipped_total", "loop"); got != 605 {
				t.Errorf("%v skipped, want 605", got)
			}
			if got := count(); got != 2 {
				t.Errorf("%v came, want 2", got)
			}
		})
	}
}

func TestGuard_holdsForDestinationsThatEventsName(t *testing.T) {
	guard := newFleet("home")
	ours, theirs := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	guard.listens("udp", ours.addr(), true)
	a, reg := openAddressed(t, Options{Guard: guard}, "127.0.0.0/8")
	deliver(t, a, []trace.Event{to(0, "sip:"+ours.addr(), "hep+udp://"+theirs.addr())})
	theirs.take(t, 1)
	if got := metric(t, reg, "events_skipped_total", "addressed", "loop"); got != 1 || len(ours.got) > 0 {
		t.Errorf("%v skipped, %d sent, want 1 and none", got, len(ours.got))
	}
}

func TestGuard_isAskedAboutWhatTellsNothingByItself(t *testing.T) {
	tests := []struct {
		uri     string
		refused bool
	}{
		{"hep+udp://192.0.2.1?version=1", true},
		{"hep+udp://192.0.2.1?version=2", true},
		{"hep+udp://192.0.2.1?mark=0", true},
		{"hep+tls://192.0.2.1?mark=0", true},
		{"sip+udp://192.0.2.1", true},
		{"hep+udp://192.0.2.1", false},
		{"hep+tcp://192.0.2.1", false},
		{"sip+udp://192.0.2.1?taps=1", false},
		{"hep+udp://192.0.2.1?version=2&taps=1", false},
		{"hep+udp://192.0.2.1?mark=0&taps=1", false},
	}
	home, nameless := newFleet("home"), newFleet("")
	for _, network := range []string{"udp", "tcp"} {
		home.listens(network, "192.0.2.1:9060", true)
		nameless.listens(network, "192.0.2.1:9060", true)
	}
	at := netip.MustParseAddrPort("[::ffff:192.0.2.1]:9060")
	for _, tt := range tests {
		d := parse(t, tt.uri)
		if err := d.refused(home, at); isLoop(err) != tt.refused {
			t.Errorf("%s: %v, want refused: %v", tt.uri, err, tt.refused)
		}
		if err := d.refused(nil, at); err != nil {
			t.Errorf("%s: %v without a guard", tt.uri, err)
		}
	}
	d := parse(t, "hep+udp://192.0.2.1")
	if err := d.refused(nameless, at); !isLoop(err) {
		t.Errorf("%v, want what cannot be marked yet to be refused", err)
	}
	if isLoop(net.ErrClosed) || isLoop(nil) {
		t.Error("any error is a loop")
	}
}
