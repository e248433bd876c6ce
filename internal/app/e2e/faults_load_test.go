package e2e

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bench"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A load sends events to a tap at a steady rate, over TCP, as agents do that
// have a memory: what could not be written is written to the next connection.
// What the kernels and the tap held when a connection broke the sender cannot
// know: HEP has no acknowledgement.
type load struct {
	t    *testing.T
	addr string
	rate int

	stop chan struct{}
	once sync.Once
	end  chan struct{} // closed when nothing more is sent

	mu     sync.Mutex
	sent   map[trace.ID]bool
	newest trace.ID
	bytes  int // of all that were sent
	breaks int // connections that broke
}

// startLoad sends until halt.
func startLoad(t *testing.T, addr string, rate int) *load {
	t.Helper()
	traffic, err := bench.NewTraffic(uint64(time.Now().UnixNano()), 1000, "faults")
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, addr: addr, rate: rate, stop: make(chan struct{}), end: make(chan struct{}), sent: make(map[trace.ID]bool)}
	go func() {
		defer close(l.end)
		l.run(traffic)
	}()
	t.Cleanup(l.halt)
	return l
}

// quantum is how often a load sends what is due.
const quantum = 5 * time.Millisecond

// A pace says how much is due.
type pace struct {
	rate  int
	begun time.Time
	n     int
}

func newPace(rate int) *pace { return &pace{rate: rate, begun: time.Now()} }

// due is how many are to be sent now: after a pause four times as many as usual.
func (p *pace) due() int {
	due := int(time.Since(p.begun).Seconds()*float64(p.rate)) - p.n
	due = min(due, 4*int(quantum.Seconds()*float64(p.rate)))
	p.n += due
	return due
}

// run sends what is due each few milliseconds.
func (l *load) run(traffic *bench.Traffic) {
	tick := time.NewTicker(quantum)
	defer tick.Stop()
	var (
		conn  net.Conn
		names trace.Names
		dec   hep.Decoder
		pace  = newPace(l.rate)
		b     []byte
		ids   []trace.ID
	)
	defer func() {
		if conn != nil {
			_ = conn.Close() // all of it is written
		}
	}()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		b, ids = b[:0], ids[:0]
		for range pace.due() {
			from := len(b)
			b = traffic.Append(b, time.Now())
			ids = append(ids, l.identify(&dec, &names, b[from:]))
		}
		if conn = l.write(conn, b); conn == nil {
			return
		}
		l.note(ids, len(b))
	}
}

// identify is the id of the event that a packet becomes.
func (l *load) identify(dec *hep.Decoder, names *trace.Names, packet []byte) trace.ID {
	var p hep.Packet
	if err := dec.Decode(&p, packet); err != nil {
		l.t.Error(err)
	}
	var e trace.Event
	trace.FromHEP(&e, &p, names)
	e.Identify()
	return e.ID
}

// write writes b as a whole, to the next connection if this one breaks, and
// returns the connection that took it, or nil when it is time to stop.
func (l *load) write(conn net.Conn, b []byte) net.Conn {
	for {
		if conn != nil {
			if _, err := conn.Write(b); err == nil {
				return conn
			}
			_ = conn.Close()
			conn = nil
			l.mu.Lock()
			l.breaks++
			l.mu.Unlock()
		}
		var err error
		if conn, err = net.DialTimeout("tcp4", l.addr, time.Second); err == nil {
			continue
		}
		conn = nil
		select {
		case <-l.stop:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *load) note(ids []trace.ID, bytes int) {
	if len(ids) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if l.sent[id] {
			l.t.Errorf("event %s was made twice: the count means nothing", id)
		}
		l.sent[id] = true
	}
	l.newest = ids[len(ids)-1]
	l.bytes += bytes
}

// mark returns an event that is sent after now.
func (l *load) mark() trace.ID {
	l.t.Helper()
	before := l.last()
	after := before
	eventually(l.t, "the load goes on", func() bool {
		after = l.last()
		return after != before
	})
	return after
}

// last is the event that was sent last.
func (l *load) last() trace.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// count is how many were sent.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent)
}

// broken is how many connections broke.
func (l *load) broken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.breaks
}

// halt ends the load.
func (l *load) halt() {
	l.once.Do(func() { close(l.stop) })
	<-l.end
}

// ids are all that were sent. The load has to be halted.
func (l *load) ids() map[trace.ID]bool {
	l.halt()
	return l.sent
}
