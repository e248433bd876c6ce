package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A WriterResult is what [Writer] has measured. The time begins when db-writer
// is started: connecting and making the tables is part of it.
type WriterResult struct {
	Kind    string  `json:"kind"` // "writer"
	Machine Machine `json:"machine"`
	Cores   int     `json:"cores"`

	Waiting     uint64        `json:"waiting"` // events in the stream
	EarlyTook   time.Duration `json:"early_ns"`
	EarlyRows   uint64        `json:"early_rows"` // stored by then
	EarlyPerSec float64       `json:"early_rows_per_second"`
	Rows        uint64        `json:"rows"`
	Stored      uint64        `json:"stored"` // different events among the rows
	Lost        uint64        `json:"lost"`
	Took        time.Duration `json:"took_ns"`
	PerSecond   float64       `json:"rows_per_second"`
	Costs
}

// A drain is a db-writer that empties a stream.
type drain struct {
	*rig
	nats  *natsServer
	db    *database
	meter meter
	run   string // name of the agents
}

// Writer fills a stream and measures how fast db-writer stores what is in it.
// What happens is told on say.
func Writer(ctx context.Context, o WriterOptions, say io.Writer) (_ *WriterResult, err error) {
	defer interrupted(ctx, &err)
	if o.Rows < 1 || o.Duration <= 0 {
		return nil, errors.New("nothing to store: --rows and --duration are to be above nought")
	}
	r, err := newRig(o.Place, 1<<30+int64(o.Rows)*bytesPerEvent, say)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	d := &drain{rig: r, meter: meter{proc: hostProc()}, run: "bench-" + strconv.FormatInt(time.Now().Unix(), 36)}
	r.printf("starting %s database, nats-server in %s", o.Store, r.dir)
	if d.db, err = r.database(ctx, o.Store); err != nil {
		return nil, err
	}
	if d.nats, err = r.nats(ctx); err != nil {
		return nil, err
	}
	r.printf("filling the stream with %s events", count(uint64(o.Rows)))
	if err := d.fill(ctx, o.Rows); err != nil {
		return nil, err
	}
	r.printf("starting db-writer")
	return d.measure(ctx, o)
}

// fill publishes events as a tap does, as fast as it goes.
func (d *drain) fill(ctx context.Context, events int) (err error) {
	log := slog.New(slog.NewTextHandler(d.say, &slog.HandlerOptions{Level: slog.LevelWarn}))
	conn, err := bus.Connect(bus.Options{URL: d.nats.url, Name: "bench"}, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Await(ctx); err != nil {
		return err
	}
	if _, err := conn.EnsureStreams(ctx, bus.StreamConfig{}); err != nil {
		return err
	}
	p, err := bus.NewPublisher(conn, bus.PublisherOptions{Agent: "bench"}, prometheus.NewRegistry(), log)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	return d.publish(ctx, p, events)
}

// publish writes so many events of the last while, oldest first, to p.
func (d *drain) publish(ctx context.Context, p trace.Sink, events int) error {
	const batch, apart = 4096, 10 * time.Microsecond
	traffic, err := NewTraffic(uint64(time.Now().UnixNano()), callsAtOnce, d.run)
	if err != nil {
		return err
	}
	at := time.Now().Add(-time.Duration(events) * apart)
	var decoder hep.Decoder
	var names trace.Names
	var memory []byte
	list := make([]trace.Event, 0, batch)
	for done := 0; done < events; done += len(list) {
		memory, list = memory[:0], list[:0]
		for range min(batch, events-done) {
			start := len(memory)
			memory = traffic.Append(memory, at)
			at = at.Add(apart)
			var packet hep.Packet
			if err := decoder.Decode(&packet, memory[start:]); err != nil {
				return err
			}
			list = append(list, trace.Event{})
			e := &list[len(list)-1]
			trace.FromHEP(e, &packet, &names)
			e.Identify()
		}
		if err := p.Write(ctx, list); err != nil {
			return fmt.Errorf("fill the stream: %w", err)
		}
	}
	return nil
}

// measure starts db-writer and watches it empty the stream.
func (d *drain) measure(ctx context.Context, o WriterOptions) (*WriterResult, error) {
	d.meter.add("nats-server", d.nats.pid())
	if d.db.pid != 0 {
		d.meter.add("PostgreSQL", d.db.pid)
	}
	from, err := d.meter.read()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	w, err := d.service(ctx, "db-writer", d.nats, []string{"SIPTRACE_STORE=" + d.db.url})
	if err != nil {
		return nil, err
	}
	d.meter.add("db-writer", w.pid())
	from.programs = append(from.programs, 0) // it has begun with nothing
	r := &WriterResult{Kind: "writer", Machine: thisMachine(), Cores: o.Cores, Waiting: uint64(o.Rows)}
	r.Machine.NATS, r.Machine.Database = d.nats.version, d.db.name
	ended, rows, err := d.watch(ctx, w, r, started, o.Duration)
	if err != nil {
		return nil, err
	}
	to, err := d.meter.read()
	if err != nil {
		return nil, err
	}
	r.Costs = d.meter.costs(from, to, rows)
	d.printf("counting rows")
	stored, err := d.db.count(ctx, d.run)
	if err != nil {
		return nil, err
	}
	r.Rows, r.Stored, r.Took = stored.rows, stored.events, ended.Sub(started)
	r.Lost = r.Waiting - min(r.Waiting, r.Stored)
	r.PerSecond = float64(r.Stored) / r.Took.Seconds()
	return r, nil
}

// watch waits until all rows are stored, or none are any more, and says when
// the last one was found and how many they are. After the time early it takes
// a first figure.
func (d *drain) watch(ctx context.Context, w *service, r *WriterResult, started time.Time, early time.Duration) (time.Time, uint64, error) {
	before, since := uint64(0), started
	for {
		now := time.Now()
		m, err := w.metrics(ctx)
		if err != nil {
			return now, 0, err
		}
		rows := m.sum(rowsMetric, "")
		if took := now.Sub(started); r.EarlyTook == 0 && (took >= early || rows >= r.Waiting) {
			r.EarlyTook, r.EarlyRows = took, rows
			r.EarlyPerSec = float64(rows) / took.Seconds()
		}
		if rows != before {
			before, since = rows, now
		}
		if rows >= r.Waiting || now.Sub(since) > settleQuiet {
			return since, rows, nil
		}
		if err := sleepUntil(ctx, now.Add(4*settlePoll)); err != nil {
			return now, 0, err
		}
	}
}
