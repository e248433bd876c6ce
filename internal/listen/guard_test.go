package listen

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// been is a HEP3 packet that has been in the streams of some fleets.
func been(t testing.TB, payload string, fleets ...string) []byte {
	t.Helper()
	return packet(t, payload, func(p *hep.Packet) {
		for _, f := range fleets {
			p.Private = hep.AppendChunk(p.Private, trace.Vendor, trace.ChunkOrigin, []byte(f))
		}
	})
}

func TestGuard_letsNothingInThatHasBeenHere(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			guard := NewGuard(nil)
			var s Listener
			var count *counters
			if network == "udp" {
				u := listenUDP(t, HEPOptions{Guard: guard})
				s, count = u, u.count
			} else {
				c, _ := listenTCP(t, HEPOptions{Guard: guard})
				s, count = c, c.count
			}
			in := newInbox()
			start(t, s, in)
			conn := dial(t, s)
			send(t, conn, been(t, "before", "home"))
			in.wait(t, 1) // nobody has said yet where home is
			guard.SetFleet("home")
			send(t, conn, been(t, "one", "home"), been(t, "two", "far", "home"), been(t, "three", "far"), been(t, "four"),
				been(t, "five", strings.Split("a b c d e f g h i j k l m n o p q", " ")...), been(t, "six", "homer"))
			events := in.wait(t, 4)
			if got := payloads(events); got != "before three four six" {
				t.Errorf("let in %q", got)
			}
			if got, want := string(events[1].Chunks), string(hep.AppendChunk(nil, trace.Vendor, trace.ChunkOrigin, []byte("far"))); got != want {
				t.Errorf("chunks %q, want %q: the event is to tell where it has been", got, want)
			}
			wantDropped(t, count, map[drop]int{dropLoop: 3})
		})
	}
}

func TestGuard_ignoresSenders(t *testing.T) {
	guard := NewGuard([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("127.0.0.2/32")})
	from := func(t *testing.T, ip string, to net.Addr) net.Conn {
		t.Helper()
		local := &net.UDPAddr{IP: net.ParseIP(ip)}
		conn, err := net.DialUDP("udp", local, to.(*net.UDPAddr))
		if err != nil {
			t.Skipf("no second address on the loopback here: %v", err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	t.Run("of HEP", func(t *testing.T) {
		s := listenUDP(t, HEPOptions{Guard: guard})
		in := newInbox()
		start(t, s, in)
		send(t, from(t, "127.0.0.2", s.Addr()), good(t, "ignored"))
		send(t, dial(t, s), good(t, "taken"))
		if got := payloads(in.wait(t, 1)); got != "taken" {
			t.Errorf("took %q", got)
		}
		wantDropped(t, s.count, map[drop]int{dropIgnored: 1})
	})
	t.Run("of plain SIP", func(t *testing.T) {
		s := listenSIP(t, SIPOptions{Guard: guard})
		in := newInbox()
		start(t, s, in)
		send(t, from(t, "127.0.0.2", s.Addr()), duplicate("BYE ignored\r\n\r\n"))
		send(t, dial(t, s), duplicate("BYE taken\r\n\r\n"))
		if got := payloads(in.wait(t, 1)); got != "BYE taken\r\n\r\n" {
			t.Errorf("took %q", got)
		}
		wantDropped(t, s.count, map[drop]int{dropIgnored: 1})
	})
	t.Run("of streams", func(t *testing.T) {
		s, _ := listenTCP(t, HEPOptions{Guard: NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})})
		start(t, s, newInbox())
		conn := dial(t, s)
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("read %d bytes, %v, want the connection closed", n, err)
		}
		if got := testutil.ToFloat64(s.conns.refused); got != 1 {
			t.Errorf("%v connections refused, want 1", got)
		}
	})
}

func TestGuard_endsTheCirclesOfMessagesWithoutTime(t *testing.T) {
	again := func(p *hep.Packet) { p.Version, p.Node, p.CaptureID = 1, nil, 0 }
	t.Run("HEP version 1", func(t *testing.T) {
		s := listenUDP(t, HEPOptions{Guard: NewGuard(nil)})
		in := newInbox()
		start(t, s, in)
		conn := dial(t, s)
		for range maxRepeats + 10 {
			send(t, conn, packet(t, "round", again))
		}
		send(t, conn, packet(t, "last", again))
		if events := in.wait(t, maxRepeats+1); string(events[maxRepeats].Payload) != "last" {
			t.Errorf("event %d is %q, want the rounds to end", maxRepeats, events[maxRepeats].Payload)
		}
		wantDropped(t, s.count, map[drop]int{dropLoop: 10})
	})
	t.Run("bare SIP", func(t *testing.T) {
		s := listenSIP(t, SIPOptions{Bare: true, Guard: NewGuard(nil)})
		in := newInbox()
		start(t, s, in)
		conn := dial(t, s)
		for range maxRepeats + 10 {
			send(t, conn, []byte(message))
		}
		send(t, conn, duplicate("BYE last\r\n\r\n"))
		in.wait(t, maxRepeats+1)
		wantDropped(t, s.count, map[drop]int{dropLoop: 10})
	})
	t.Run("but not those of messages with one", func(t *testing.T) {
		s := listenUDP(t, HEPOptions{Guard: NewGuard(nil)})
		in := newInbox()
		start(t, s, in)
		conn := dial(t, s)
		for range maxRepeats + 10 {
			send(t, conn, good(t, "again"))
		}
		in.wait(t, maxRepeats+10)
		wantDropped(t, s.count, nil)
	})
}

func TestRepeats_forgetAfterAWhile(t *testing.T) {
	var r repeats
	e := trace.Event{Time: noon, Src: src, Dst: dst, Payload: []byte(message)}
	for range maxRepeats {
		if r.tooMany(&e) {
			t.Fatal("too many too soon")
		}
	}
	if !r.tooMany(&e) {
		t.Error("one more than there may be is not too many")
	}
	other := e
	other.Src = dst
	if r.tooMany(&other) {
		t.Error("a message between other addresses is taken for the same")
	}
	e.Time = noon.Add(repeatTime * 1e9)
	if r.tooMany(&e) {
		t.Error("it is not forgotten")
	}
}
