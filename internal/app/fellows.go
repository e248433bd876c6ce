package app

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"

	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// fellows are the neighbours of a forwarder, which tells them in turn how it
// sends plain SIP.
type fellows struct {
	*neighbours
	ways  atomic.Pointer[[]string]
	named atomic.Pointer[forward.Addressed] // nil where events may name no destinations
}

func newFellows(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, f ForwarderFlags, log *slog.Logger) (*fellows, error) {
	destinations, err := f.destinations()
	if err != nil {
		return nil, err
	}
	fe := &fellows{neighbours: newNeighbours(c, nil, log)}
	fe.ways.Store(new([]string))
	fe.ahead = func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, neighboursTime)
		defer cancel()
		ways := fe.waysTo(ctx, destinations)
		fe.ways.Store(&ways)
	}
	runner(lc, sd, log, "neighbours", fe.run)
	return fe, nil
}

// waysTo are the ways to destinations, and to those that events have named.
func (fe *fellows) waysTo(ctx context.Context, destinations []forward.Destination) []string {
	if named := fe.named.Load(); named != nil {
		destinations = slices.Concat(destinations, named.SIP())
	}
	return sends(ctx, destinations)
}

// sends are the ways on which plain SIP goes out, as of when it was looked last.
func (fe *fellows) sends() []string { return *fe.ways.Load() }

// before lets nothing into a sink until the fleet is known: what is sent to a
// tap by mistake cannot be taken back.
func (fe *fellows) before(sink trace.Sink) trace.Sink {
	return trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		fe.await(ctx)
		return sink.Write(ctx, events)
	})
}
