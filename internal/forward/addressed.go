package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// addressedLabel stands in metrics for all destinations that events name.
	addressedLabel = "addressed"

	// maxRoutes is how many destinations are open at a time.
	maxRoutes = 64

	// maxAtOnce is how many destinations are written to at a time.
	maxAtOnce = 8

	// maxPlans is how many texts of destinations are remembered.
	maxPlans = 1024

	// maxArrived is how many deliveries are remembered for the next Write.
	maxArrived = 64 << 10

	// tryFor is how long a destination that is given up is tried with one event,
	// now and then, while the others wait.
	tryFor = time.Second
)

// Addressed is the sink of the events that name destinations of their own. It
// sends each to all it names, and skips the events that name none. Give it a
// consumer of its own, and let the others skip what it takes: [Options].
//
// What an event names comes from afar. It has to be allowed, and must not name
// files or local addresses of this machine; such an event is rejected. A
// destination that is away holds up the events for others only for a while:
// after [Options.GiveUp] its events are rejected, until it is back. When some
// destinations took an event and others did not, the next Write of that event
// goes to the others only.
type Addressed struct {
	allow Allow
	o     Options
	m     *metrics
	count *counters
	log   *slog.Logger
	life  life

	turn    turn // guards what follows
	plans   map[string]plan
	arrived map[arrival]bool // of Writes that failed
	routes  *routes
	swept   chan struct{} // closed when idle routes are no longer looked for

	mu  sync.Mutex
	sip map[Destination]bool // plain SIP, named by events and allowed
}

// plan is what a text that named a destination means.
type plan struct {
	d      Destination
	reason string // why it is not to be used; empty is fine
	err    error
}

// arrival is one event that one destination has taken.
type arrival struct {
	id trace.ID
	d  Destination
}

// NewAddressed makes a sink that sends to whatever destinations are allowed.
// It opens nothing yet. Close it.
func NewAddressed(allow Allow, o Options, reg prometheus.Registerer, log *slog.Logger) (*Addressed, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("addressed destinations: %w", err)
	}
	o = o.withDefaults()
	o.SkipAddressed = false // they are addressed, all of them
	a := &Addressed{
		allow: allow, o: o, m: m, count: m.of(addressedLabel), log: log, life: newLife(), turn: newTurn(),
		plans: make(map[string]plan), arrived: make(map[arrival]bool), swept: make(chan struct{}),
		sip: make(map[Destination]bool),
	}
	a.routes = newRoutes(func(d Destination) (Sink, error) { return open(d, o, m, addressedLabel, log) })
	go a.sweep()
	return a, nil
}

// sweep closes what is not used.
func (a *Addressed) sweep() {
	defer close(a.swept)
	tick := time.NewTicker(max(a.o.IdleClose/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-a.life.ctx.Done():
			return
		case now := <-tick.C:
			a.routes.closeIdle(now.Add(-a.o.IdleClose))
		}
	}
}

// Write sends each event to the destinations it names.
func (a *Addressed) Write(ctx context.Context, events []trace.Event) error {
	if err := a.turn.take(ctx); err != nil {
		return err
	}
	defer a.turn.give()
	if a.life.ended() {
		return errClosed
	}
	ctx, stop := a.life.within(ctx)
	defer stop()
	no := rejects{count: a.count}
	parcels := a.sort(events, &no)
	if err := a.deliver(ctx, parcels); err != nil {
		a.remember(parcels)
		return err
	}
	clear(a.arrived)
	for _, p := range parcels {
		no.list = append(no.list, p.rejected...) // counted where they were rejected
	}
	no.list = firstOfEach(no.list)
	return no.err()
}

// sort makes a parcel for each destination, in the order in which they come.
func (a *Addressed) sort(events []trace.Event, no *rejects) []*parcel {
	var parcels []*parcel
	to := make(map[Destination]*parcel)
	for i := range events {
		e := &events[i]
		switch {
		case e.Flags.Has(trace.NoDuplicate):
			a.count.skip(skipFlagged)
			continue
		case len(e.Destinations) == 0:
			a.count.skip(skipUnaddressed)
			continue
		}
		for _, text := range e.Destinations {
			plan := a.plan(text)
			if plan.reason != "" {
				no.add(i, plan.reason, plan.err)
				continue
			}
			p := to[plan.d]
			if p == nil {
				p = &parcel{d: plan.d}
				to[plan.d] = p
				parcels = append(parcels, p)
			}
			p.add(e, i, a.arrived)
		}
	}
	return parcels
}

// plan reads the text that names a destination.
func (a *Addressed) plan(text string) plan {
	if p, ok := a.plans[text]; ok {
		return p
	}
	var p plan
	if p.d, p.err = ParseDestination(text); p.err == nil {
		p.err = p.d.fromAfar()
	}
	switch {
	case p.err != nil:
		p.reason = reasonBadURI
	case !a.allow.Allows(p.d.Host):
		p.reason, p.err = reasonNotAllowed, fmt.Errorf("host %s is not in the list of allowed hosts", p.d.Host)
	}
	if len(a.plans) >= maxPlans {
		clear(a.plans)
	}
	a.plans[text] = p
	if p.reason == "" && p.d.Scheme == SIPUDP {
		a.note(p.d)
	}
	return p
}

// note remembers a destination of plain SIP, as long as there are not too many.
func (a *Addressed) note(d Destination) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.sip) < maxPlans {
		a.sip[d] = true
	}
}

// SIP are the destinations of plain SIP that events have named so far.
func (a *Addressed) SIP() []Destination {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.sip))
}

// fromAfar reports what in a destination is for this machine's owner to say.
func (d *Destination) fromAfar() error {
	switch {
	case d.TLS.CA != "" || d.TLS.Cert != "" || d.TLS.Key != "":
		return errors.New("an event must not name files: ca, cert, key")
	case d.From.IsValid():
		return errors.New("an event must not name a local address: from")
	case d.NoMark || d.Taps:
		return errors.New("an event must not set aside the guard against loops: mark, taps")
	case d.Fallback != nil:
		return errors.New("an event names its destinations one by one: no fallback")
	}
	return nil
}

// deliver writes all parcels, several at a time, and returns what is to be
// tried again.
func (a *Addressed) deliver(ctx context.Context, parcels []*parcel) error {
	var g errgroup.Group
	g.SetLimit(maxAtOnce)
	for _, p := range parcels {
		if len(p.events) > 0 {
			g.Go(func() error {
				a.write(ctx, p)
				return nil
			})
		}
	}
	_ = g.Wait() // each parcel has its own error
	var errs []error
	for _, p := range parcels {
		if p.err != nil {
			errs = append(errs, p.err)
		}
	}
	return errors.Join(errs...)
}

// write writes one parcel.
func (a *Addressed) write(ctx context.Context, p *parcel) {
	r, err := a.routes.take(p.d)
	if err != nil {
		p.reject(a.count, reasonBadURI, err)
		return
	}
	defer a.routes.give(r)
	probe := 0
	if now := time.Now(); r.givenUp(now, a.o.GiveUp) {
		if now.Before(r.again) {
			p.reject(a.count, reasonUnreachable, r.err)
			return
		}
		probe = 1 // one event tells whether it is back
		try, cancel := context.WithTimeout(ctx, tryFor)
		defer cancel()
		if !a.send(ctx, try, r, p, 0, probe) {
			return
		}
	}
	if probe < len(p.events) {
		a.send(ctx, ctx, r, p, probe, len(p.events))
	}
}

// send writes the events of a parcel from lo up to hi within the time of try,
// and reports whether the destination is there.
func (a *Addressed) send(ctx, try context.Context, r *route, p *parcel, lo, hi int) bool {
	err := r.sink.Write(try, p.events[lo:hi])
	var no trace.Rejected
	switch {
	case err == nil:
		r.good()
		return true
	case errors.As(err, &no):
		r.good()
		for _, one := range no {
			one.Index = p.index[lo+one.Index]
			p.rejected = append(p.rejected, one)
		}
		return true
	case ctx.Err() != nil:
		p.err = context.Cause(ctx)
		return false
	}
	r.bad(err, time.Now())
	if r.givenUp(time.Now(), a.o.GiveUp) {
		p.reject(a.count, reasonUnreachable, err)
	} else {
		p.err = err
	}
	return false
}

// remember notes what has arrived, for the Write that tries the rest again.
func (a *Addressed) remember(parcels []*parcel) {
	for _, p := range parcels {
		if p.err != nil {
			continue
		}
		if len(a.arrived)+len(p.events) > maxArrived {
			clear(a.arrived)
		}
		for i := range p.events {
			if id := p.events[i].ID; !id.IsZero() && !p.refused(p.index[i]) {
				a.arrived[arrival{id, p.d}] = true
			}
		}
	}
}

// Check returns nil: there is nothing that has to be there.
func (a *Addressed) Check(context.Context) error { return nil }

// Close closes all that is open.
func (a *Addressed) Close() error {
	a.life.end()
	a.turn <- struct{}{}
	defer a.turn.give()
	<-a.swept
	return a.routes.close()
}
