package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// WriterFlags are what makes a db-writer.
type WriterFlags struct {
	Store        string   `help:"Database: postgres://user@host/db or sqlite:FILE; required." placeholder:"URL"`
	Table        string   `help:"Table of events that name none." default:"sip_trace"`
	Durable      string   `help:"Name of the durable consumer: processes with the same name share the work, another name gets every event again." default:"db-writer"`
	Batch        int      `help:"Events in one transaction, about." default:"5000"`
	Linger       Duration `help:"Longest wait for a batch to fill." default:"200ms"`
	Connections  int      `help:"Batches written at the same time." default:"2"`
	AutoSchema   bool     `help:"Apply the schema at start when it is missing." default:"true" negatable:""`
	CreateTables bool     `help:"Make tables that events name and that do not exist; else such events are rejected." negatable:""`
	Partition    string   `help:"PostgreSQL: time span of one partition, day or hour." enum:"day,hour" default:"day"`
	Oldest       Duration `help:"PostgreSQL: reject what was captured longer ago, or more than two days ahead: each day of it would need a partition." default:"3660d" placeholder:"DURATION"`
	Keep         Duration `help:"Drop what was captured longer ago: 30d; without it nothing is dropped by age. PostgreSQL drops whole partitions." placeholder:"DURATION"`
	MaxSize      Size     `help:"Drop the oldest when the tables hold more: 500GB; the last 24 hours stay at any rate. 0 is no limit." default:"0" placeholder:"SIZE"`
	Durability   string   `help:"full: a commit waits for the disk; relaxed: it does not (synchronous_commit=off)." enum:"full,relaxed" default:"full"`
}

// WriterOptions are the flags of the db-writer command.
type WriterOptions struct {
	ServiceFlags
	WriterFlags
}

func (o *WriterOptions) common() *ServiceFlags { return &o.ServiceFlags }

func (o *WriterOptions) defaultHTTP() string { return ":9083" }

// Validate reports the first wrong value.
func (o *WriterOptions) Validate() error {
	if err := bus.CheckURL(o.NATS); err != nil {
		return err
	}
	return o.WriterFlags.validate()
}

// check has nothing to read: a database is connected to, and that may wait.
func (o *WriterOptions) check() error { return nil }

func (f *WriterFlags) validate() error {
	if f.Store == "" {
		return errors.New("no database: name one with --store, for example --store postgres://siptrace@db/siptrace")
	}
	if f.Batch < 1 || f.Connections < 1 {
		return errors.New("--batch and --connections take a number above nought")
	}
	if f.Oldest < 0 {
		return errors.New("--oldest takes no time below nought")
	}
	if f.Durable == "" || f.Durable != bus.Token(f.Durable) {
		return fmt.Errorf("--durable %q: use letters, digits, '-' and '_', at most 32 of them", f.Durable)
	}
	if err := open.Check(f.Store); err != nil {
		return err
	}
	_, err := f.options(nil, nil).WithDefaults()
	return err
}

func (f *WriterFlags) options(reg prometheus.Registerer, log *slog.Logger) store.Options {
	return store.Options{
		Table:        f.Table,
		Connections:  f.Connections,
		NoSchema:     !f.AutoSchema,
		CreateTables: f.CreateTables,
		Hourly:       f.Partition == "hour",
		Relaxed:      f.Durability == "relaxed",
		Past:         time.Duration(f.Oldest),
		Registerer:   reg,
		Log:          log,
	}
}

// Module wires the db-writer service.
func (o *WriterOptions) Module() fx.Option {
	return WriterModule(o.WriterFlags, o.Options("db-writer"), o.streams())
}

// WriterModule is a db-writer: bus → database.
func WriterModule(f WriterFlags, conn bus.Options, streams bus.StreamConfig) fx.Option {
	return fx.Module("db-writer",
		fx.Supply(f, fx.Private),
		connect(conn, streams),
		fx.Provide(fx.Private, openStore, newWriterConsumer),
		fx.Provide(fx.Annotate(
			func(s store.Store, src *bus.Consumer) []telemetry.Check {
				return []telemetry.Check{{Name: "database", Func: s.Ready}, {Name: "stream", Func: src.Check}}
			},
			fx.ResultTags(`group:"checks,flatten"`),
		)),
		fx.Invoke(maintain, retain, runWriter),
	)
}

func openStore(lc fx.Lifecycle, f WriterFlags, reg prometheus.Registerer, log *slog.Logger) (store.Store, error) {
	s, err := open.Writer(context.Background(), f.Store, f.options(reg, log))
	if err != nil {
		return nil, err
	}
	lc.Append(fx.StopHook(s.Close))
	return s, nil
}

func newWriterConsumer(c *bus.Conn, f WriterFlags, reg prometheus.Registerer, log *slog.Logger) (*bus.Consumer, error) {
	return bus.NewConsumer(c, bus.ConsumerOptions{
		Durable:      f.Durable,
		BatchEvents:  f.Batch,
		Linger:       time.Duration(f.Linger),
		Workers:      f.Connections,
		DrainTimeout: drainTimeout,
	}, bus.NewRejects(c), reg, log)
}

// maintainEvery is how often partitions are made ahead.
const maintainEvery = 10 * time.Minute

// maintain makes partitions ahead of their time.
func maintain(lc fx.Lifecycle, sd fx.Shutdowner, s store.Store, log *slog.Logger) {
	runner(lc, sd, log, "maintenance", func(ctx context.Context) error {
		for wait := time.Duration(0); ; {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			wait = maintainEvery
			if err := s.Maintain(ctx); err != nil && ctx.Err() == nil {
				log.Warn("partitions not made ahead, trying again", "err", err)
				wait = 10 * time.Second
			}
		}
	})
}

// retainEvery is how often a writer looks for what is not to be kept.
const retainEvery = 30 * time.Minute

// retain drops what is too old or too much. Of many writers one does it.
func retain(lc fx.Lifecycle, sd fx.Shutdowner, f WriterFlags, log *slog.Logger) error {
	r := store.Retention{Age: time.Duration(f.Keep), Bytes: int64(f.MaxSize)}
	if r.Age == 0 && r.Bytes == 0 {
		return nil
	}
	s, err := open.Schema(f.Store)
	if err != nil {
		return err
	}
	lc.Append(fx.StopHook(s.Close))
	runner(lc, sd, log, "retention", func(ctx context.Context) error {
		for {
			dropped, err := s.Retain(ctx, r)
			for _, d := range dropped {
				log.Info("dropped what is not to be kept", "what", d)
			}
			switch {
			case err == nil, errors.Is(err, store.ErrRetaining), ctx.Err() != nil:
			default:
				log.Warn("old data not dropped, trying again", "in", retainEvery, "err", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retainEvery):
			}
		}
	})
	return nil
}

// runWriter runs the bus into the database.
func runWriter(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, src *bus.Consumer, s store.Store, f WriterFlags, gather *prometheus.Registry, log *slog.Logger) {
	runner(lc, sd, log, "consumer "+f.Durable, func(ctx context.Context) error {
		log.Info("writing", "store", Redact(f.Store), "durable", f.Durable)
		return src.Run(ctx, s)
	})
	serveNode(lc, c, gather, log, bus.NodeInfo{Service: "db-writer", Name: f.Durable}, nodeReport{
		counts: map[string]string{
			"in":       "siptrace_consumer_events_total",
			"out":      "siptrace_db_writer_rows_total",
			"rejected": "siptrace_consumer_rejected_total",
			"retries":  "siptrace_consumer_write_retries_total",
			"dropped":  "siptrace_stream_expired_unread_total",
		},
		checks: []telemetry.Check{{Name: "database", Func: s.Ready}, {Name: "stream", Func: src.Check}},
	})
}
