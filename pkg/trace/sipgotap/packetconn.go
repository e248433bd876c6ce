package sipgotap

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// WrapPacketConn returns a UDP socket that is traced. On a wildcard bind the
// kernel is asked to tell to which address each datagram came, where it can.
func (t *Tap) WrapPacketConn(c net.PacketConn) net.PacketConn {
	p := &packetConn{
		PacketConn: c,
		tap:        t,
		local:      addrPort(c.LocalAddr()),
		transport:  t.udp,
		forget:     t.wrapped.add(socket{local: c.LocalAddr().String()}),
	}
	if udp, ok := c.(*net.UDPConn); ok {
		p.reader = newReader(udp, p.local.Addr().IsUnspecified())
	}
	return p
}

// packetConn is a UDP socket that is traced.
type packetConn struct {
	net.PacketConn
	tap       *Tap
	local     netip.AddrPort
	transport *transport
	reader    *reader // nil where there is only ReadFrom
	forget    func()
}

// ReadFrom reads and traces.
func (p *packetConn) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	local, cut := p.local, false
	if p.reader != nil {
		var to netip.Addr
		n, from, to, cut, err = p.reader.read(b)
		if to.IsValid() {
			local = netip.AddrPortFrom(to, local.Port())
		}
	} else {
		n, from, err = p.PacketConn.ReadFrom(b)
	}
	if err == nil && n > 0 {
		p.saw(time.Now(), trace.In, local, from, b[:n], cut)
	}
	return n, from, err
}

// WriteTo writes and traces. The time is that before, so that an answer is
// never older than what it answers.
func (p *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	at := time.Now()
	n, err := p.PacketConn.WriteTo(b, to)
	if err == nil && n > 0 {
		p.saw(at, trace.Out, p.local, to, b[:n], false)
	}
	return n, err
}

func (p *packetConn) saw(at time.Time, way trace.Direction, local netip.AddrPort, remote net.Addr, b []byte, cut bool) {
	defer p.tap.survive()
	p.tap.datagram(at, &leg{p.transport, local, addrPort(remote), way}, b, cut)
}

// Close closes the socket.
func (p *packetConn) Close() error {
	err := p.PacketConn.Close()
	p.forget()
	return err
}

// controls are buffers for what the kernel says beside a datagram.
type controls struct{ pool sync.Pool }

func newControls() *controls {
	return &controls{sync.Pool{New: func() any { return new([128]byte) }}}
}

func (c *controls) get() *[128]byte  { return c.pool.Get().(*[128]byte) }
func (c *controls) put(b *[128]byte) { c.pool.Put(b) }
