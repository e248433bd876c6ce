package sipgotap

import (
	"sync"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A flow is one direction of a connection.
type flow struct {
	tap *Tap
	leg leg

	mu     sync.Mutex
	frames framer
	web    *unwebsocket // nil if this is no WebSocket
}

// newFlow returns a flow of the bytes on a connection.
func newFlow(t *Tap, l leg) *flow {
	f := &flow{tap: t, leg: l}
	if said := l.transport.said; said == trace.WS || said == trace.WSS {
		f.web = new(unwebsocket)
	}
	return f
}

// saw takes bytes that came or went at that time. It keeps none of b.
func (f *flow) saw(at time.Time, b []byte) {
	defer f.tap.survive()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.web != nil {
		f.web.feed(b, func(message []byte, cut bool) { f.tap.datagram(at, &f.leg, message, cut) })
		f.tap.garbage.Add(take(&f.web.garbage))
		return
	}
	for f.frames.feed(b); f.frames.next(); {
		message, cut := f.frames.message()
		f.tap.message(at, &f.leg, message, &f.frames.msg, cut)
	}
	f.frames.keep()
	f.tap.garbage.Add(take(&f.frames.garbage))
	f.tap.keepAlives.Add(take(&f.frames.pings))
}

// take returns what has been counted since it was asked last.
func take(n *int) uint64 {
	v := *n
	*n = 0
	return uint64(v)
}
