package forward

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Sink sends events to one destination, or to those that events name.
//
// Events flagged [trace.NoDuplicate] are skipped. An event that cannot be sent
// whatever happens is a [trace.Rejected] with a reason; every other error can
// be retried with the same events. Several goroutines may call Write; over a
// stream, one writes while others wait for their acknowledgements.
type Sink interface {
	trace.Sink

	// Check returns nil when events can be sent now, or else what is being
	// waited for. It makes a connection if there is none, and never waits
	// for a Write.
	Check(ctx context.Context) error

	// Close ends every Write that is still waiting, with an error that is
	// [net.ErrClosed], and waits for what the sink has running.
	Close() error
}

// Options are what all destinations of a program have in common. The zero
// value is good.
type Options struct {
	// SkipAddressed makes the sink of a destination leave alone the events
	// that name destinations of their own. [Addressed] takes those.
	SkipAddressed bool

	// Fallback takes what is too long for a UDP datagram where a
	// destination names no fallback of its own; it has to be HEP over TCP
	// or TLS.
	Fallback *Destination

	// Guard keeps what is sent from coming back; nil does not.
	Guard Guard

	DialTimeout  time.Duration // for a connection and its TLS handshake; 0 is 5 s
	WriteTimeout time.Duration // without any progress of a connection; 0 is 10 s
	ResolveEvery time.Duration // how old the address of a name may be, over UDP; 0 is 30 s
	Resolver     *net.Resolver // nil is the system's

	// GiveUp is how long an [Addressed] sink tries one destination before
	// it rejects the events for it, so that they hold up no others; 0 is 30 s.
	GiveUp time.Duration
	// IdleClose is after how long an Addressed sink closes what it has
	// opened and does not use; 0 is 5 min.
	IdleClose time.Duration
}

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.DialTimeout, 5*time.Second)
	set(&o.WriteTimeout, 10*time.Second)
	set(&o.ResolveEvery, 30*time.Second)
	set(&o.GiveUp, 30*time.Second)
	set(&o.IdleClose, 5*time.Minute)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	return o
}

// Open makes the sink of a destination. It reads the files that the
// destination names, and does not wait for the far side. Close it.
func Open(d Destination, o Options, reg prometheus.Registerer, log *slog.Logger) (Sink, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d, err)
	}
	s, err := open(d, o.withDefaults(), m, d.Name(), log)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d, err)
	}
	return s, nil
}

// open is Open with a label for the metrics, and an error that does not say
// what was to be opened.
func open(d Destination, o Options, m *metrics, label string, log *slog.Logger) (Sink, error) {
	log = log.With("destination", d)
	count := m.of(label)
	pick := selection{skipAddressed: o.SkipAddressed, guard: o.Guard, count: count}
	switch {
	case d.Scheme.stream():
		return newStream(d, o, pick, count, log)
	case d.Scheme == SIPUDP:
		return newDatagrams(d, o, &sipEncoder{xheaders: d.XHeaders}, nil, pick, count, log)
	case d.Scheme != HEPUDP:
		return nil, fmt.Errorf("unknown scheme %q: %s", d.Scheme, knownSchemes)
	}
	over := d.Fallback
	if over == nil {
		over = o.Fallback
	}
	if over == nil {
		return newDatagrams(d, o, newHEPEncoder(d, o.Guard), nil, pick, count, log)
	}
	if err := over.canBeFallback(); err != nil {
		return nil, fmt.Errorf("fallback %s: %w", over, err)
	}
	o.SkipAddressed = false // what goes there has been selected
	fallback, err := open(*over, o, m, over.Name(), log)
	if err != nil {
		return nil, fmt.Errorf("fallback %s: %w", over, err)
	}
	return newDatagrams(d, o, newHEPEncoder(d, o.Guard), fallback, pick, count, log)
}

// selection decides which events a sink has to do with.
type selection struct {
	skipAddressed bool
	guard         Guard
	count         *counters
}

// takes reports whether e is for the sink, and counts it if it is not.
func (s *selection) takes(e *trace.Event) bool {
	switch {
	case e.Flags.Has(trace.NoDuplicate):
		s.count.skip(skipFlagged)
	case s.skipAddressed && len(e.Destinations) > 0:
		s.count.skip(skipAddressed)
	case hasBeen(s.guard, e):
		s.count.skip(skipLoop)
	default:
		return true
	}
	return false
}

// turn is a lock that can be waited for within a context.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try takes the turn if it is free.
func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// give gives the turn to the next.
func (t turn) give() { <-t }

// life is what ends when a sink is closed.
type life struct {
	ctx context.Context
	end context.CancelFunc
}

func newLife() life {
	ctx, end := context.WithCancel(context.Background())
	return life{ctx, end}
}

// within returns a context that ends with ctx and with the life. Call the
// function when done.
func (l life) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(net.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// ended reports whether the sink is closed.
func (l life) ended() bool { return l.ctx.Err() != nil }
