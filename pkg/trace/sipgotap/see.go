package sipgotap

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A leg is one way of a message: who sent it to whom, over what.
type leg struct {
	transport     *transport
	local, remote netip.AddrPort
	direction     trace.Direction
}

// other is the same connection, the other way.
func (l leg) other() leg {
	l.direction = trace.In + trace.Out - l.direction
	return l
}

// transport is what a connection is, as far as that is known: a connection
// that is not wrapped may be more than what it was said to be.
type transport struct {
	said    trace.Transport
	learned atomic.Uint32
	ports   map[uint16]trace.Transport
	known   bool // what was said is so
}

func knownTransport(t trace.Transport) *transport { return &transport{said: t, known: true} }

// of is the transport of a message on the connection.
func (t *transport) of(l *leg, b []byte, m *sipmsg.Message) trace.Transport {
	if t.known {
		return t.said
	}
	if learned := trace.Transport(t.learned.Load()); learned != trace.TransportUnknown {
		return learned
	}
	learned := t.learn(l, m.ViaTransport.Of(b))
	t.learned.Store(uint32(learned))
	return learned
}

// learn decides between the plain and the secure form of a transport.
func (t *transport) learn(l *leg, via []byte) trace.Transport {
	secure := trace.TLS
	if t.said == trace.WS {
		secure = trace.WSS
	}
	for _, port := range [...]uint16{l.local.Port(), l.remote.Port()} {
		if p, ok := t.ports[port]; ok && (p == t.said || p == secure) {
			return p
		}
	}
	if named, ok := trace.ParseTransport(string(via)); ok && named == secure {
		return secure
	}
	return t.said
}

// message takes a message that is whole, or cut. Without m it is read when
// somebody marks something.
func (t *Tap) message(at time.Time, l *leg, b []byte, m *sipmsg.Message, cut bool) {
	put := message{
		at:        at,
		kind:      trace.TypeSIP,
		transport: l.transport.of(l, b, m),
		direction: l.direction,
		src:       l.remote,
		dst:       l.local,
		payload:   b,
		unread:    m == nil,
	}
	if m != nil {
		put.keys = t.hash.keys(b, m)
	}
	if l.direction == trace.Out {
		put.src, put.dst = l.local, l.remote
	}
	if cut {
		put.flags = trace.Truncated
	}
	t.put(&put)
}

// datagram takes what came or went in one piece. It is a message, whatever is
// wrong with it, unless it is a keep-alive.
//
// Reading a message costs most of what tracing costs, and it is for marks: as
// long as there has been none the program is spared it.
func (t *Tap) datagram(at time.Time, l *leg, b []byte, cut bool) {
	if l.transport.known && !t.marking.Load() && len(b) > 0 && !isPadding(b[0]) && !isSTUN(b) {
		t.message(at, l, b, nil, cut)
		return
	}
	var m sipmsg.Message
	sipmsg.Scan(&m, b)
	if m.Flags.Has(sipmsg.KeepAlive) || isSTUN(b) {
		t.keepAlives.Add(1)
		return
	}
	t.message(at, l, b, &m, cut)
}

// isSTUN reports whether b is a STUN message, the other keep-alive of RFC 5626.
func isSTUN(b []byte) bool {
	const head, cookie = 20, 0x2112a442
	return len(b) >= head && b[0]&0xc0 == 0 && binary.BigEndian.Uint32(b[4:]) == cookie
}

// put brings a message into the buffer, or counts it as dropped.
func (t *Tap) put(m *message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count.Seen++
	if m.unread && t.marking.Load() { // somebody has, meanwhile
		m.read(t.hash, m.payload)
	}
	now := t.now()
	switch {
	case m.kind == trace.TypeLog && !m.src.IsValid():
		m.src, m.dst = t.home, t.home
	case m.direction == trace.Out:
		t.home = m.src
	case m.direction == trace.In:
		t.home = m.dst
	}
	r := t.queue.put(m, now)
	if r == nil {
		t.count.Dropped++
		return
	}
	t.marks.of(&r.keys, &r.marks, now)
	if t.queue.len() == 1 || t.queue.half() {
		select {
		case t.wake <- struct{}{}:
		default: // Run knows already
		}
	}
}

// addrPort is an address as sipgo and the net package hand it about.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	case nil:
	default:
		ap, _ = netip.ParseAddrPort(a.String()) // an address that is none is nowhere
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
