package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// BusFlags say where NATS is and how to be let in.
type BusFlags struct {
	NATS    string `name:"nats" list:"" help:"NATS servers, separated by commas." default:"nats://127.0.0.1:4222" placeholder:"URL"`
	Creds   string `help:"Credentials file for NATS: user JWT and seed." placeholder:"FILE"`
	NKey    string `name:"nkey" help:"File with the seed of an nkey for NATS." placeholder:"FILE"`
	TLSCA   string `name:"tls-ca" help:"Roots to trust for NATS over TLS instead of the system's." placeholder:"FILE"`
	TLSCert string `name:"tls-cert" help:"Client certificate for NATS." placeholder:"FILE"`
	TLSKey  string `name:"tls-key" help:"Key of the client certificate." placeholder:"FILE"`
}

// Options are the flags as the bus wants them; name is who connects.
func (f *BusFlags) Options(name string) bus.Options {
	return bus.Options{URL: f.NATS, Name: name, Creds: f.Creds, NKeySeed: f.NKey, CA: f.TLSCA, Cert: f.TLSCert, Key: f.TLSKey}
}

// check reads the files that the flags name.
func (f *BusFlags) check(name string) error {
	c, err := bus.Connect(f.Options(name), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// StreamFlags are the limits of the streams, where this process makes them;
// what exists already is left as it is.
type StreamFlags struct {
	MakeStreams    bool     `help:"Make the streams where they are missing; not for a user who may not, as docs/security.md has them." default:"true" negatable:""`
	StreamReplicas int      `help:"Copies of each stream, where this process makes them: 1, or 3 on a cluster." default:"1" placeholder:"N"`
	StreamAge      Duration `help:"How long the stream keeps events, where this process makes it." default:"2d" placeholder:"DURATION"`
	StreamMax      Size     `help:"How much the stream keeps, where this process makes it; 0 is 10GiB, or less where the server has less room." default:"0" placeholder:"SIZE"`
	Shards         int      `help:"Streams that calls are spread over, where no process has made any; else the fleet's own number is taken." default:"0" placeholder:"N"`
}

func (f *StreamFlags) validate() error {
	if f.Shards < 0 || f.Shards > bus.MaxShards {
		return fmt.Errorf("--shards %d: want a number up to %d", f.Shards, bus.MaxShards)
	}
	return nil
}

func (f *StreamFlags) streams() bus.StreamConfig {
	return bus.StreamConfig{Leave: !f.MakeStreams, Replicas: f.StreamReplicas, MaxAge: time.Duration(f.StreamAge), MaxBytes: int64(f.StreamMax), Shards: f.Shards}
}

// connect provides the connection of one service and its check.
func connect(o bus.Options, streams bus.StreamConfig) fx.Option {
	return fx.Options(
		fx.Provide(fx.Private, func(lc fx.Lifecycle, log *slog.Logger) (*bus.Conn, error) {
			c, err := bus.Connect(o, log)
			if err != nil {
				return nil, err
			}
			lc.Append(fx.StopHook(c.Close))
			return c, nil
		}),
		fx.Provide(fx.Annotate(
			func(c *bus.Conn) telemetry.Check { return telemetry.Check{Name: "nats", Func: c.Check} },
			fx.ResultTags(`group:"checks"`),
		)),
		fx.Invoke(func(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, log *slog.Logger) {
			runner(lc, sd, log, "streams", func(ctx context.Context) error {
				ensureStreams(ctx, c, streams, log)
				return nil
			})
		}),
	)
}

// ensureStreams makes the streams as soon as NATS is there.
func ensureStreams(ctx context.Context, c *bus.Conn, streams bus.StreamConfig, log *slog.Logger) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		if c.Await(ctx) != nil {
			return
		}
		err := ensure(ctx, c, streams, log)
		if err == nil || ctx.Err() != nil {
			return
		}
		log.Warn("streams not there yet", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// ensure makes the streams and says what an administrator has set otherwise.
func ensure(ctx context.Context, c *bus.Conn, streams bus.StreamConfig, log *slog.Logger) error {
	diffs, err := c.EnsureStreams(ctx, streams)
	for _, d := range diffs {
		log.Info("stream is set otherwise, left as it is", "difference", d.String())
	}
	return err
}
