package sipgotap

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// maxDialled bounds the connections that are followed without being wrapped.
const maxDialled = 16384

// process is the one tracer that sipgo has for the whole process. It is set
// once, because sipgo reads it without any lock, and hands on to the tap that
// was installed last.
var process struct {
	once sync.Once
	tap  atomic.Pointer[Tap]
}

// Install makes the tap trace also what is not wrapped: the connections that
// sipgo dials, and the sockets that it opens itself. That is sipgo's own tracer,
// one for the process, so the tap that was installed last has it. Call Install
// before the program serves or dials anything: sipgo reads the
// variables it sets without a lock. The func it returns ends it.
//
// A program with a tracer of its own calls [Tap.Tracer] from there instead.
func (t *Tap) Install() (remove func()) {
	process.once.Do(func() {
		sip.SIPDebugTracer(installed{})
		sip.SIPDebug = true
	})
	process.tap.Store(t)
	return func() { process.tap.CompareAndSwap(t, nil) }
}

// installed is what sipgo calls.
type installed struct{}

func (installed) SIPTraceRead(transport, laddr, raddr string, msg []byte) {
	if t := process.tap.Load(); t != nil {
		t.sees(trace.In, transport, laddr, raddr, msg)
	}
}

func (installed) SIPTraceWrite(transport, laddr, raddr string, msg []byte) {
	if t := process.tap.Load(); t != nil {
		t.sees(trace.Out, transport, laddr, raddr, msg)
	}
}

// Tracer returns the tap as a tracer of sipgo, for programs that have one of
// their own to call it from.
func (t *Tap) Tracer() sip.SIPTracer { return tracer{t} }

type tracer struct{ tap *Tap }

func (t tracer) SIPTraceRead(transport, laddr, raddr string, msg []byte) {
	t.tap.sees(trace.In, transport, laddr, raddr, msg)
}

func (t tracer) SIPTraceWrite(transport, laddr, raddr string, msg []byte) {
	t.tap.sees(trace.Out, transport, laddr, raddr, msg)
}

// sees takes what sipgo's tracer says: the bytes of one read or write. sipgo
// says TCP for TLS and WS for WSS.
func (t *Tap) sees(way trace.Direction, said, laddr, raddr string, b []byte) {
	defer t.survive()
	at := time.Now()
	transport, _ := trace.ParseTransport(said)
	s := socket{laddr, raddr}
	switch transport {
	case trace.UDP:
		s = socket{local: laddr}
	case trace.TCP, trace.TLS:
		if len(b) == 0 && way == trace.In {
			t.dialled.forget(s)
			return
		}
	}
	if len(b) == 0 || t.wrapped.knows(s) {
		return
	}
	switch transport {
	case trace.TCP, trace.TLS:
		t.dialled.find(t, s, transport, laddr, raddr, at).way(way).saw(at, b)
	default: // a message to a call
		l := t.tracedLeg(transport, laddr, raddr)
		l.direction = way
		// What fills sipgo's buffer was longer: no datagram is as long as it should be set.
		cut := transport == trace.UDP && way == trace.In && len(b) == int(sip.TransportBufferReadSize)
		t.datagram(at, &l, b, cut)
	}
}

// tracedLeg is the leg of a socket that sipgo's tracer speaks of.
func (t *Tap) tracedLeg(said trace.Transport, laddr, raddr string) leg {
	local, _ := netip.ParseAddrPort(laddr) // what is no address is nowhere
	remote, _ := netip.ParseAddrPort(raddr)
	what := t.udp
	if said != trace.UDP {
		what = &transport{said: said, ports: t.opts.Ports, known: said != trace.TCP && said != trace.WS}
	}
	return leg{
		transport: what,
		local:     netip.AddrPortFrom(local.Addr().Unmap(), local.Port()),
		remote:    netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()),
		direction: trace.In,
	}
}

// dialled are the connections that are followed without being wrapped.
type dialled struct {
	mu    sync.Mutex
	conns map[socket]*followed
}

type followed struct {
	in, out *flow
	used    time.Time
}

func newDialled() dialled { return dialled{conns: make(map[socket]*followed)} }

func (f *followed) way(d trace.Direction) *flow {
	if d == trace.Out {
		return f.out
	}
	return f.in
}

// find returns the connection, which may be new.
func (d *dialled) find(t *Tap, s socket, said trace.Transport, laddr, raddr string, at time.Time) *followed {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.conns[s]
	if !ok {
		if len(d.conns) >= maxDialled {
			d.forgetOldest()
		}
		in := t.tracedLeg(said, laddr, raddr)
		f = &followed{in: newFlow(t, in), out: newFlow(t, in.other())}
		d.conns[s] = f
	}
	f.used = at
	return f
}

// forgetOldest forgets the connection that has been silent longest.
func (d *dialled) forgetOldest() {
	var oldest socket
	var used time.Time
	for s, f := range d.conns {
		if used.IsZero() || f.used.Before(used) {
			oldest, used = s, f.used
		}
	}
	delete(d.conns, oldest)
}

func (d *dialled) forget(s socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, s)
}
