package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
	"golang.org/x/sync/errgroup"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// ForwarderFlags are what makes a hep-forwarder.
type ForwarderFlags struct {
	To     []string `help:"Where every event goes, repeatable, each with a consumer of its own: hep+udp://host:9060?version=3, hep+tcp://host, hep+tls://host, sip+udp://host:5060?xheaders=1, sip:10.1.1.1:5888." sep:"none" placeholder:"URL"`
	Allow  []string `help:"Where events may send themselves, repeatable: addresses, networks or host names. Without it destinations named by events are refused." placeholder:"NET"`
	Linger Duration `help:"Longest wait for a batch to fill." default:"20ms"`
	Start  string   `help:"What a new destination gets first: all that the stream holds, or only what is new." enum:"all,new" default:"new"`
}

// ForwarderOptions are the flags of the hep-forwarder command.
type ForwarderOptions struct {
	ServiceFlags
	ForwarderFlags
}

func (o *ForwarderOptions) common() *ServiceFlags { return &o.ServiceFlags }

func (o *ForwarderOptions) defaultHTTP() string { return ":9082" }

// Validate reports the first wrong value.
func (o *ForwarderOptions) Validate() error {
	if err := bus.CheckURL(o.NATS); err != nil {
		return err
	}
	_, err := o.destinations()
	return err
}

// check reads the files that destinations name.
func (o *ForwarderOptions) check() error {
	destinations, err := o.destinations()
	if err != nil {
		return err
	}
	for _, d := range destinations {
		s, err := forward.Open(d, forward.Options{}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// destinations reads --to; two that are the same are a mistake.
func (f *ForwarderFlags) destinations() ([]forward.Destination, error) {
	if len(f.To) == 0 && len(f.Allow) == 0 {
		return nil, errors.New("no destination: give at least one --to, for example --to hep+udp://10.0.0.5:9060")
	}
	seen := make(map[string]bool)
	var out []forward.Destination
	for _, s := range f.To {
		d, err := forward.ParseDestination(s)
		if err != nil {
			return nil, err
		}
		if seen[d.Name()] {
			return nil, fmt.Errorf("destination %s is given twice", d)
		}
		seen[d.Name()] = true
		out = append(out, d)
	}
	_, err := forward.ParseAllow(f.Allow)
	return out, err
}

// Module wires the hep-forwarder service.
func (o *ForwarderOptions) Module() fx.Option {
	return ForwarderModule(o.ForwarderFlags, o.Options("hep-forwarder"), o.streams())
}

// ForwarderModule is a hep-forwarder: bus → collectors.
func ForwarderModule(f ForwarderFlags, conn bus.Options, streams bus.StreamConfig) fx.Option {
	return fx.Module("hep-forwarder",
		fx.Supply(f, fx.Private),
		connect(conn, streams),
		fx.Provide(fx.Private, newFellows, openLines),
		fx.Provide(fx.Annotate(
			lineChecks,
			fx.ResultTags(`group:"checks,flatten"`),
		)),
		fx.Invoke(runForwarder),
	)
}

// A line is one destination with the consumer that feeds it.
type line struct {
	name string // of the durable consumer
	to   string // for people
	src  *bus.Consumer
	sink forward.Sink
}

// durableOf is the name of the consumer that reads for a destination. Where it
// would be too long the host is cut: the digest at the end tells destinations
// apart.
func durableOf(d forward.Destination) string {
	const digest = 9 // with its hyphen
	name := "fwd-" + d.Name()
	fit := bus.Token(name)
	if fit == name {
		return name
	}
	return fit[:len(fit)-digest] + name[len(name)-digest:]
}

// openLines makes a line for each destination, and one for the events that
// name their own where that is allowed.
func openLines(lc fx.Lifecycle, c *bus.Conn, f ForwarderFlags, fellows *fellows, reg prometheus.Registerer, log *slog.Logger) ([]line, error) {
	destinations, err := f.destinations()
	if err != nil {
		return nil, err
	}
	var lines []line
	add := func(name, to string, sink forward.Sink) error {
		lc.Append(fx.StopHook(sink.Close))
		src, err := bus.NewConsumer(c, bus.ConsumerOptions{
			Durable:      name,
			BatchEvents:  1000,
			Linger:       time.Duration(f.Linger),
			Workers:      1,
			DrainTimeout: drainTimeout,
			New:          f.Start == "new",
		}, bus.NewRejects(c), reg, log)
		if err != nil {
			return err
		}
		lines = append(lines, line{name, to, src, sink})
		return nil
	}
	for _, d := range destinations {
		sink, err := forward.Open(d, forward.Options{SkipAddressed: true, Guard: fellows}, reg, log)
		if err != nil {
			return nil, err
		}
		if err := add(durableOf(d), d.String(), sink); err != nil {
			return nil, err
		}
	}
	if len(f.Allow) > 0 {
		allow, err := forward.ParseAllow(f.Allow)
		if err != nil {
			return nil, err
		}
		sink, err := forward.NewAddressed(allow, forward.Options{Guard: fellows}, reg, log)
		if err != nil {
			return nil, err
		}
		fellows.named.Store(sink)
		if err := add("fwd-addressed", "what events name", sink); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// lineChecks say which collectors are away, and which consumers cannot read.
func lineChecks(lines []line) []telemetry.Check {
	each := func(check func(context.Context, line) error) func(context.Context) error {
		return func(ctx context.Context) error {
			var errs []error
			for _, l := range lines {
				errs = append(errs, check(ctx, l))
			}
			return errors.Join(errs...)
		}
	}
	return []telemetry.Check{
		{Name: "destinations", Func: each(func(ctx context.Context, l line) error { return l.sink.Check(ctx) })},
		{Name: "stream", Func: each(func(ctx context.Context, l line) error { return l.src.Check(ctx) })},
	}
}

// runForwarder runs the bus into every destination; none waits for another.
func runForwarder(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, fellows *fellows, lines []line, gather *prometheus.Registry, log *slog.Logger) {
	runner(lc, sd, log, "consumers", func(ctx context.Context) error { // one of them, so that all are asked to end at once
		g, ctx := errgroup.WithContext(ctx)
		for _, l := range lines {
			g.Go(func() error {
				log.Info("forwarding", "to", l.to, "durable", l.name)
				return l.src.Run(ctx, fellows.before(l.sink))
			})
		}
		return g.Wait()
	})
	serveNode(lc, c, gather, log, bus.NodeInfo{Service: "hep-forwarder", Name: hostname()}, nodeReport{
		counts: map[string]string{
			"in":       "siptrace_consumer_events_total",
			"out":      "siptrace_forwarder_events_sent_total",
			"rejected": "siptrace_consumer_rejected_total",
			"retries":  "siptrace_consumer_write_retries_total",
			"dropped":  "siptrace_stream_expired_unread_total",
		},
		checks: lineChecks(lines),
		sends:  fellows.sends,
	})
}
