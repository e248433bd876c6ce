package listen

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// duplicate is a message with X-Siptrace headers.
func duplicate(msg string) []byte {
	return []byte(strings.Replace(msg, "\r\n\r\n", "\r\n"+fiveHeaders+"\r\n", 1))
}

// listenSIP opens a source of plain SIP on the loopback.
func listenSIP(t testing.TB, o SIPOptions) *Siptrace {
	t.Helper()
	s, err := ListenSiptrace("127.0.0.1:0", o, prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSiptrace_makesEventsOfDuplicates(t *testing.T) {
	s := listenSIP(t, SIPOptions{})
	in := newInbox()
	start(t, s, in)
	send(t, dial(t, s), duplicate(message), duplicate("SIP/2.0 200 OK\r\n\r\n\x00\xff"))
	events := in.wait(t, 2)
	e := events[0]
	if !e.Time.Equal(time.Unix(1795374357, 7000_000)) || e.Src != src || e.Dst != dst || e.Transport != trace.TCP || e.Type != trace.TypeSIP ||
		e.Direction != trace.Out || string(e.Payload) != message || e.Agent != (trace.Agent{}) {
		t.Errorf("got %+v", e)
	}
	if got := string(events[1].Payload); got != "SIP/2.0 200 OK\r\n\r\n\x00\xff" {
		t.Errorf("payload %q", got)
	}
	wantDropped(t, s.count, nil)
}

func TestSiptrace_takesTheTimeOfComingWhereNoneIsTold(t *testing.T) {
	s := listenSIP(t, SIPOptions{})
	in := newInbox()
	start(t, s, in)
	before := time.Now()
	core := strings.NewReplacer("1795374357 7000", "0 0", "Method: INVITE", "Method: ") // as Kamailio's core engine writes them
	send(t, dial(t, s), []byte(core.Replace(string(duplicate(message)))))
	e := in.wait(t, 1)[0]
	if e.Time.Before(before.Add(-time.Millisecond)) || e.Time.After(time.Now()) || e.Src != src || string(e.Payload) != message {
		t.Errorf("got %+v", e)
	}
}

func TestSiptrace_dropsWhatDoesNotSayFromWhereToWhere(t *testing.T) {
	bad := strings.Replace(string(duplicate(message)), "udp:192.0.2.1:5060", "?", 1)
	partial := strings.Replace(string(duplicate(message)), "X-Siptrace-Toip", "X-Somebody-Toip", 1)
	s := listenSIP(t, SIPOptions{})
	in := newInbox()
	start(t, s, in)
	send(t, dial(t, s), []byte(message), []byte(bad), []byte{}, []byte(partial), []byte("\r\n\r\n"), []byte("\x00\xff"), duplicate(message))
	if got := payloads(in.wait(t, 1)); got != message {
		t.Errorf("got %q", got)
	}
	wantDropped(t, s.count, map[drop]int{dropNoXHeaders: 3, dropBadXHeaders: 2, dropEmpty: 1})
	if got := testutil.ToFloat64(s.count.packets); got != 7 {
		t.Errorf("%v packets counted, want 7", got)
	}
}

func TestSiptrace_takesBareMessagesWhenTold(t *testing.T) {
	s := listenSIP(t, SIPOptions{Bare: true})
	in := newInbox()
	start(t, s, in)
	conn := dial(t, s)
	here, there := netip.MustParseAddrPort(s.Addr().String()), netip.MustParseAddrPort(conn.LocalAddr().String())
	partial := strings.Replace(string(duplicate(message)), "X-Siptrace-Fromip: udp:192.0.2.1:5060", "X-Siptrace-Fromip: ?", 1)
	before := time.Now()
	send(t, conn, []byte(message), []byte(partial), duplicate(message))
	events := in.wait(t, 3)
	bare := events[0]
	if bare.Src != there || bare.Dst != here || bare.Transport != trace.UDP || bare.Direction != trace.DirectionUnknown ||
		bare.Time.Before(before.Add(-time.Millisecond)) || string(bare.Payload) != message {
		t.Errorf("without headers: %+v", bare)
	}
	if e := events[1]; e.Src.IsValid() || e.Dst != dst || e.Direction != trace.Out || string(e.Payload) != message {
		t.Errorf("with some: %+v", e)
	}
	if e := events[2]; e.Src != src || e.Dst != dst {
		t.Errorf("with all: %+v", e)
	}
	wantDropped(t, s.count, nil)
}

func TestSiptrace_knowsNoAddressOfItsOwnOnAllAddresses(t *testing.T) {
	s, err := ListenSiptrace(":0", SIPOptions{Bare: true}, prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	in := newInbox()
	start(t, s, in)
	conn, err := dialUDP("127.0.0.1:" + s.Addr().String()[strings.LastIndexByte(s.Addr().String(), ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send(t, conn, []byte(message))
	if e := in.wait(t, 1)[0]; e.Dst.IsValid() || e.Src.String() != conn.LocalAddr().String() {
		t.Errorf("from %v to %v, want %v and nothing", e.Src, e.Dst, conn.LocalAddr())
	}
}

func TestSiptrace_allocatesNothingPerEvent(t *testing.T) {
	tests := map[string]struct {
		b []byte
		o SIPOptions
	}{
		"headers":    {duplicate(invite()[:400] + "\r\n\r\n"), SIPOptions{}},
		"IPv6":       {[]byte(strings.Replace(string(duplicate(message)), "192.0.2.1:", "[2001:db8::1]:", 1)), SIPOptions{}},
		"bare":       {[]byte(message), SIPOptions{Bare: true}},
		"bare, seen": {[]byte(message), SIPOptions{Bare: true, Guard: NewGuard([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})}},
		"no headers": {[]byte(message), SIPOptions{}},
	}
	for name, tt := range tests {
		s := listenSIP(t, tt.o)
		conn := dial(t, s)
		sink := trace.SinkFunc(func(context.Context, []trace.Event) error { return nil })
		round := func() {
			for range 10 {
				send(t, conn, tt.b)
			}
			for got := 0; got < 10; {
				n, err := s.recv.receive()
				if err != nil {
					t.Fatal(err)
				}
				s.batch(t.Context(), sink, n)
				got += n
			}
		}
		round() // a log line, scratch
		if n := testing.AllocsPerRun(100, round); n != 0 {
			t.Errorf("%s: %v allocations for 10 packets, want 0", name, n)
		}
	}
}

// BenchmarkSiptrace_receive is all that a datagram costs us that waits in the
// socket.
func BenchmarkSiptrace_receive(b *testing.B) {
	s := listenSIP(b, SIPOptions{})
	conn := dial(b, s)
	p := duplicate(invite())
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		b.StopTimer()
		waiting := min(1024, b.N-done)
		for range waiting {
			send(b, conn, p)
		}
		b.StartTimer()
		for got := 0; got < waiting; {
			n, err := s.recv.receive()
			if err != nil {
				b.Fatal(err)
			}
			s.batch(b.Context(), discard, n)
			got += n
		}
		done += waiting
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
