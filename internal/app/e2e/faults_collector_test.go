package e2e

import (
	"bytes"
	"io"
	"maps"
	"net"
	"sync"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// An audience is a collector for HEP over TCP that knows events by their ids.
// While it is rude it breaks each connection in the middle of a packet.
type audience struct {
	addr string
	ln   net.Listener
	wg   sync.WaitGroup

	mu     sync.Mutex
	times  map[trace.ID]int
	conns  map[net.Conn]bool
	rude   bool
	breaks int // connections broken
	unread int // bytes that its kernel had taken by then and nobody had read
}

// listen is an audience at an address, until the test ends.
func listen(t *testing.T, addr string) *audience {
	t.Helper()
	a := &audience{times: make(map[trace.ID]int), conns: make(map[net.Conn]bool)}
	a.open(t, addr)
	t.Cleanup(a.leave)
	return a
}

func (a *audience) open(t *testing.T, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	a.ln, a.addr = ln, ln.Addr().String()
	a.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			a.wg.Go(func() { a.serve(conn.(*net.TCPConn)) })
		}
	})
}

// leave closes the collector with all of its connections.
func (a *audience) leave() {
	_ = a.ln.Close()
	a.mu.Lock()
	for conn := range a.conns {
		_ = conn.Close()
	}
	a.mu.Unlock()
	a.wg.Wait()
}

func (a *audience) serve(conn *net.TCPConn) {
	defer conn.Close()
	a.mu.Lock()
	a.conns[conn] = true
	rude := a.rude
	a.mu.Unlock()
	if rude {
		a.insult(conn)
		return
	}
	a.hear(conn)
}

// hear notes what comes until the end.
func (a *audience) hear(from io.Reader) {
	var (
		r     = hep.NewReader(from)
		names trace.Names
		p     hep.Packet
		dec   hep.Decoder
	)
	for {
		b, err := r.Next()
		if err != nil {
			return
		}
		if dec.Decode(&p, b) != nil {
			continue // the comparison finds it missing
		}
		var e trace.Event
		trace.FromHEP(&e, &p, &names)
		e.Identify()
		a.mu.Lock()
		a.times[e.ID]++
		a.mu.Unlock()
	}
}

// insult reads some packets and a piece of one, and breaks the connection. The
// whole ones it has heard.
func (a *audience) insult(conn *net.TCPConn) {
	b := make([]byte, 20_011)
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	unread := waiting(conn)
	_ = conn.SetLinger(0) // a reset, not an end
	_ = conn.Close()
	a.hear(bytes.NewReader(b))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.breaks++
	a.unread += unread
}

// behave makes it a good one, or a rude one.
func (a *audience) behave(good bool) (breaks, unread int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rude = !good
	return a.breaks, a.unread
}

func (a *audience) has(id trace.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.times[id] > 0
}

// distinct is how many different events have come.
func (a *audience) distinct() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.times)
}

// heard counts how often each event has come.
func (a *audience) heard() map[trace.ID]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.times)
}
