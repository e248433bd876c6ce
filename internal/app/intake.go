package app

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Gate is what a tap knows of the global state. Many sources ask it, one
// watcher sets it.
type Gate struct {
	open     atomic.Bool
	revision atomic.Uint64
}

// Set opens or closes the gate, as a revision of the state says.
func (g *Gate) Set(on bool, revision uint64) {
	g.open.Store(on)
	g.revision.Store(revision)
}

// Open reports whether events pass.
func (g *Gate) Open() bool { return g.open.Load() }

// Revision is the revision of the state that was applied last.
func (g *Gate) Revision() uint64 { return g.revision.Load() }

// intakeMetrics count what comes in at a tap and what becomes of it.
type intakeMetrics struct {
	received prometheus.Counter
	off      prometheus.Counter
	full     prometheus.Counter
	lost     atomic.Uint64 // what full counts, for the log
}

func newIntakeMetrics(reg prometheus.Registerer, source string) (*intakeMetrics, error) {
	labels := prometheus.Labels{"source": source}
	m := &intakeMetrics{
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_tap_events_received_total", ConstLabels: labels,
			Help: "Events that a source has captured.",
		}),
		off: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_tap_events_unselected_total", ConstLabels: labels,
			Help: "Events that were not wanted: tracing is off and no rule selects them.",
		}),
		full: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_tap_events_overflow_total", ConstLabels: labels,
			Help: "Events lost because the buffer between wire and bus was full.",
		}),
	}
	for _, c := range []prometheus.Collector{m.received, m.off, m.full} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// An outlet takes events towards the bus and says how many it took: the first
// so many. It never blocks.
type outlet interface {
	Offer(events []trace.Event) int
}

// intake is the sink behind one source of a tap. It asks the gate, completes
// what the source could not know and hands on.
type intake struct {
	gate    *Gate
	all     bool // mode all: the global state alone selects
	agent   trace.Agent
	metrics *intakeMetrics
	out     trace.Sink

	mu    sync.Mutex // a source may write from several connections
	batch []trace.Event
}

// Write hands on the events that are wanted. It changes none of the caller's.
func (in *intake) Write(ctx context.Context, events []trace.Event) error {
	in.metrics.received.Add(float64(len(events)))
	if !in.all || !in.gate.Open() {
		in.metrics.off.Add(float64(len(events)))
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.batch = append(in.batch[:0], events...)
	for i := range in.batch {
		in.complete(&in.batch[i])
	}
	return in.out.Write(ctx, in.batch)
}

// complete fills in what the source did not know and identifies the event.
func (in *intake) complete(e *trace.Event) {
	if e.Agent.ID == 0 && e.Agent.Name == "" {
		e.Agent = in.agent
	}
	e.Src, e.Dst = unmap(e.Src), unmap(e.Dst)
	e.Identify()
}

// unmap writes an IPv4 address that came in IPv6 clothes as what it is.
func unmap(a netip.AddrPort) netip.AddrPort {
	if !a.Addr().Is4In6() {
		return a
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// offering is the sink of sources that cannot wait: what does not fit into the
// buffer is lost, and counted.
func offering(out outlet, m *intakeMetrics) trace.SinkFunc {
	return func(_ context.Context, events []trace.Event) error {
		if lost := len(events) - out.Offer(events); lost > 0 {
			m.full.Add(float64(lost))
			m.lost.Add(uint64(lost))
		}
		return nil
	}
}

// tellLosses says once a second how many events the full buffer has cost.
func tellLosses(ctx context.Context, m *intakeMetrics, log *slog.Logger) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for told := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if lost := m.lost.Load(); lost > told {
			log.Warn("buffer full, events lost", "count", lost-told, "total", lost)
			told = lost
		}
	}
}
