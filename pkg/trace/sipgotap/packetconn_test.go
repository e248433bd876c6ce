package sipgotap

import (
	"net"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestWrapPacketConn_saysWhenADatagramWasCut(t *testing.T) {
	tap := New(Options{})
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tap.WrapPacketConn(raw)
	defer func() { _ = c.Close() }()
	p := udpPeer(t, "127.0.0.1", addrPort(c.LocalAddr()))
	p.send(request("MESSAGE", "a", 1, 3000))
	n, _, err := c.ReadFrom(make([]byte, 1000))
	if err != nil || n != 1000 {
		t.Fatalf("ReadFrom = %d, %v; want 1000 bytes", n, err)
	}
	got := drain(t, tap)
	if len(got) != 1 || len(got[0].Payload) != 1000 || !got[0].Flags.Has(trace.Truncated) {
		t.Errorf("%d events, want one of 1000 bytes that is flagged", len(got))
	}
}

func TestWrapPacketConn_takesAnySocket(t *testing.T) {
	tap := New(Options{})
	raw, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := tap.WrapPacketConn(struct{ net.PacketConn }{raw})
	defer func() { _ = c.Close() }()
	p := udpPeer(t, "127.0.0.1", addrPort(c.LocalAddr()))
	p.send(request("BYE", "a", 1, 0))
	if _, _, err := c.ReadFrom(make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	same(t, tap, settled(t, tap, p), p)
}
