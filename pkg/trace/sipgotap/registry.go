package sipgotap

import (
	"sync"
	"time"
)

// A socket is what sipgo's tracer calls it: the text of its addresses. A UDP
// socket has only a local one.
type socket struct{ local, remote string }

// closedFor is how long a socket that was closed is still known: the tracer
// may be about to speak of its last message.
const closedFor = 10 * time.Second

// registry knows the sockets that are wrapped, so that sipgo's tracer does not
// trace them as well.
type registry struct {
	mu     sync.RWMutex
	open   map[socket]*registered
	closed []*registered // the first to be closed comes first
}

type registered struct {
	socket socket
	closed time.Time
}

func newRegistry() registry { return registry{open: make(map[socket]*registered)} }

// add makes s known, until some time after the func it returns was called.
func (r *registry) add(s socket) (remove func()) {
	e := &registered{socket: s}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[s] = e
	return sync.OnceFunc(func() { r.remove(e) })
}

func (r *registry) remove(e *registered) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.closed = time.Now()
	r.closed = append(r.closed, e)
	for len(r.closed) > 0 && time.Since(r.closed[0].closed) > closedFor {
		if old := r.closed[0]; r.open[old.socket] == old {
			delete(r.open, old.socket)
		}
		r.closed[0] = nil
		r.closed = r.closed[1:]
	}
}

// knows reports whether s is wrapped.
func (r *registry) knows(s socket) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.open[s]
	return ok && (e.closed.IsZero() || time.Since(e.closed) <= closedFor)
}
