package app

import (
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
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
	excluded prometheus.Counter
	full     prometheus.Counter
	lost     atomic.Uint64 // what full counts, for the log
}

func newIntakeMetrics(reg prometheus.Registerer, source string) (*intakeMetrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_tap_events_" + name + "_total", Help: help,
			ConstLabels: prometheus.Labels{"source": source},
		})
	}
	m := &intakeMetrics{
		received: counter("received", "Events that a source has captured."),
		off:      counter("unselected", "Events that were not wanted: tracing is off and no rule selects them."),
		excluded: counter("excluded", "Events that a rule drops."),
		full:     counter("overflow", "Events lost because the buffer between wire and bus was full."),
	}
	for _, c := range []prometheus.Collector{m.received, m.off, m.excluded, m.full} {
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

// intake is the sink behind one source of a tap. It asks the gate and the
// rules, completes what the source could not know and hands on.
type intake struct {
	gate    *Gate
	all     bool // mode all: the global state selects
	rules   *rules.Engine
	agent   trace.Agent
	metrics *intakeMetrics
	out     trace.Sink

	mu     sync.Mutex // a source may write from several connections
	batch  []trace.Event
	places []int            // in the source's batch, of the events in ours
	scans  []sipmsg.Message // of what is being decided about
}

// Write hands on the events that are wanted. It changes none of the caller's.
func (in *intake) Write(ctx context.Context, events []trace.Event) error {
	in.metrics.received.Add(float64(len(events)))
	all := in.all && in.gate.Open()
	if !all && !in.rules.Active() {
		in.metrics.off.Add(float64(len(events)))
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.batch = append(in.batch[:0], events...)
	for i := range in.batch {
		in.complete(&in.batch[i])
	}
	if !all || in.rules.Active() {
		in.choose(all)
	}
	for i := range in.batch {
		in.batch[i].Identify()
	}
	if len(in.batch) == 0 {
		return nil
	}
	return in.placed(in.out.Write(ctx, in.batch), len(events))
}

// choose decides about the batch and leaves in it what passes. Without rules
// no message is looked into.
func (in *intake) choose(all bool) {
	if in.scans == nil {
		in.scans = make([]sipmsg.Message, rules.MaxBatch)
	}
	n, dropped := 0, 0
	in.places = in.places[:0]
	for from := 0; from < len(in.batch); from += rules.MaxBatch {
		part := in.batch[from:min(from+rules.MaxBatch, len(in.batch))]
		for i := range part {
			if part[i].Type == trace.TypeSIP {
				sipmsg.Scan(&in.scans[i], part[i].Payload)
			}
		}
		out := in.rules.Decide(part, in.scans, all)
		dropped += bits.OnesCount64(out.Dropped)
		for i := range part {
			if out.Passed&(1<<i) == 0 {
				continue
			}
			if n != from+i {
				in.batch[n] = part[i]
			}
			in.places = append(in.places, from+i)
			n++
		}
	}
	in.metrics.excluded.Add(float64(dropped))
	in.metrics.off.Add(float64(len(in.batch) - n - dropped))
	in.batch = in.batch[:n]
}

// placed names the events of an error by their places among the n of the source.
func (in *intake) placed(err error, n int) error {
	if err == nil || len(in.batch) == n {
		return err
	}
	var no trace.Rejected
	if !errors.As(err, &no) {
		return err
	}
	for i := range no {
		no[i].Index = in.places[no[i].Index]
	}
	return no
}

// complete fills in what the source did not know.
func (in *intake) complete(e *trace.Event) {
	if e.Agent.ID == 0 && e.Agent.Name == "" {
		e.Agent = in.agent
	}
	e.Src, e.Dst = unmap(e.Src), unmap(e.Dst)
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
