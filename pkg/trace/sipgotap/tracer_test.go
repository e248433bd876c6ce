package sipgotap

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestInstall_portsTellTheTransport(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
	if err != nil {
		t.Fatal(err)
	}
	tap := New(Options{Ports: map[uint16]trace.Transport{addrPort(l.Addr()).Port(): trace.TLS}})
	defer tap.Install()()
	srv := agent(t)
	serve(t, l, func() error { return srv.ServeTLS(l) })
	p := dialPeer(t, trace.TLS, at("127.0.0.1", l.Addr()), clientTLS)
	p.send(request("BYE", "a", 1, 0)) // its Via says UDP
	p.await("SIP/2.0 200")
	same(t, tap, settled(t, tap, p), p)
}

func TestInstall_theLastTapHasIt(t *testing.T) {
	first, second := New(Options{}), New(Options{})
	removeFirst := first.Install()
	removeSecond := second.Install()
	removeFirst() // which it is not any more
	installed{}.SIPTraceRead("UDP", here.String(), there.String(), request("BYE", "a", 1, 0))
	removeSecond()
	installed{}.SIPTraceRead("UDP", here.String(), there.String(), request("BYE", "a", 1, 0))
	if a, b := first.Stats().Seen, second.Stats().Seen; a != 0 || b != 1 {
		t.Errorf("the taps saw %d and %d messages, want 0 and 1", a, b)
	}
}

func TestTracer_forgetsConnectionsThatAreGone(t *testing.T) {
	tap := New(Options{})
	tracer := tap.Tracer()
	half := request("INVITE", "a", 1, 100)
	for i := range 100 {
		remote := fmt.Sprintf("192.0.2.1:%d", 1000+i)
		tracer.SIPTraceRead("TCP", here.String(), remote, half[:150])
		tracer.SIPTraceWrite("TCP", here.String(), remote, request("BYE", "a", 1, 0))
		if i%2 == 0 {
			tracer.SIPTraceRead("TCP", here.String(), remote, nil)
		}
	}
	if n := len(tap.dialled.conns); n != 50 {
		t.Errorf("%d connections followed, want the 50 that are open", n)
	}
	if n := tap.Stats().Seen; n != 100 {
		t.Errorf("%d messages seen, want 100", n)
	}
	for i := range maxDialled + 100 {
		tracer.SIPTraceWrite("TCP", here.String(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 5060).String(), half)
		if n := len(tap.dialled.conns); n > maxDialled {
			t.Fatalf("%d connections followed, want %d at most", n, maxDialled)
		}
	}
}

func TestRegistry_knowsAClosedSocketForAWhile(t *testing.T) {
	tap := New(Options{})
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tap.WrapPacketConn(raw)
	local := c.LocalAddr().String()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	tap.Tracer().SIPTraceWrite("UDP", local, there.String(), request("BYE", "a", 1, 0)) // the last word
	if n := tap.Stats().Seen; n != 0 {
		t.Errorf("%d messages seen, want 0: the wrapped socket had it", n)
	}
	for s, e := range tap.wrapped.open {
		e.closed = e.closed.Add(-2 * closedFor)
		if tap.wrapped.knows(s) {
			t.Errorf("%v is still known after %v", s, 2*closedFor)
		}
	}
	tap.wrapped.add(socket{local: "x"})()
	if n := len(tap.wrapped.open); n != 1 {
		t.Errorf("%d sockets known, want 1", n)
	}
}

func TestTracer_saysWhenADatagramWasCut(t *testing.T) {
	tap := New(Options{})
	long := request("MESSAGE", "a", 1, 60_000)
	for _, n := range []int{int(sip.TransportBufferReadSize), int(sip.TransportBufferReadSize) - 1} {
		tap.Tracer().SIPTraceRead("UDP", here.String(), there.String(), long[:n])
	}
	got := drain(t, tap)
	if len(got) != 2 || !got[0].Flags.Has(trace.Truncated) || got[1].Flags.Has(trace.Truncated) {
		t.Errorf("%d events, want two of which the one that fills the buffer is flagged", len(got))
	}
}
