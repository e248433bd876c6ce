package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/listen"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// EdgeFlags are what a tap does with events ahead of and behind the decision
// whether they are wanted.
type EdgeFlags struct {
	CompleteFlags
	IgnoreFrom []string `name:"ignore-from" help:"Senders whose packets are not taken, repeatable: an address or a network. What they send is counted, not traced." sep:"none" placeholder:"NET"`
	RPCFlags
}

func (f *EdgeFlags) validate() error {
	_, err := f.ignored()
	return errors.Join(f.CompleteFlags.validate(), err, f.RPCFlags.validate())
}

// ignored reads --ignore-from.
func (f *EdgeFlags) ignored() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range f.IgnoreFrom {
		o, err := parseOwnAddr(s)
		if err != nil || o.port != 0 {
			return nil, fmt.Errorf("--ignore-from %q: want a network or an address: 10.1.1.0/24, 10.1.1.1", s)
		}
		all = append(all, o.net)
	}
	return all, nil
}

// edges are what a tap has around its intakes:
//
//	source ─► completing ─► intake ─► departure ─► bus
//
// and in front of the sources a guard, which keeps out what the fleet itself
// has sent.
type edges struct {
	guard      *listen.Guard
	completion *completion
	neighbours *neighbours
	table      string
	reg        prometheus.Registerer

	mu      sync.Mutex
	sockets []net.Addr
}

func newEdges(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, f TapFlags, reg prometheus.Registerer, log *slog.Logger) (*edges, error) {
	ignored, err := f.ignored()
	if err != nil {
		return nil, err
	}
	e := &edges{guard: listen.NewGuard(ignored), table: f.Table, reg: reg}
	if e.completion, err = newCompletion(&f.CompleteFlags); err != nil {
		return nil, err
	}
	e.neighbours = newNeighbours(c, e.guard.SetFleet, log)
	runner(lc, sd, log, "neighbours", func(ctx context.Context) error { return e.neighbours.run(ctx) })
	return e, nil
}

// open opens an input behind the guard, and notes where it listens.
func (e *edges) open(in input, log *slog.Logger) (trace.Source, error) {
	src, err := in.open(e.guard, e.reg, log)
	if err != nil {
		return nil, err
	}
	if l, ok := src.(listen.Listener); ok {
		e.mu.Lock()
		e.sockets = append(e.sockets, l.Addr())
		e.mu.Unlock()
	}
	return src, nil
}

// around puts the edges round the intake of one source, whose way out is out.
func (e *edges) around(in *intake, out trace.Sink, file bool, source string) (trace.Sink, error) {
	d := &departure{table: e.table, out: out}
	if !file {
		var err error
		if d.loops, err = newComebacks(e.neighbours, e.reg, source); err != nil {
			return nil, err
		}
	}
	in.out = d
	return newCompleting(e.completion, in, e.reg, source)
}

// listens are the places at which the tap can be reached.
func (e *edges) listens() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return listens(e.sockets)
}
