package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// callsAtOnce is how many calls the traffic mixes.
const callsAtOnce = 4000

// A PipelineResult is what [Pipeline] has measured.
type PipelineResult struct {
	Kind    string  `json:"kind"` // "pipeline"
	Machine Machine `json:"machine"`
	Rate    int     `json:"rate"`
	Cores   int     `json:"cores"`
	Sync    bool    `json:"sync_always"`

	Load
	Rows      uint64        `json:"rows"`
	Stored    uint64        `json:"stored"` // different events among the rows
	Lost      uint64        `json:"lost"`
	LostAt    []Loss        `json:"lost_at,omitempty"`
	Whole     time.Duration `json:"whole_ns"` // from the first event sent to the last one stored
	PerSecond float64       `json:"events_per_second"`
	Frame     float64       `json:"events_per_frame"`
	Wire      float64       `json:"stream_bytes_per_event"`
	Memory    int64         `json:"tap_memory_bytes"` // the most that was resident
	Costs
}

// A Loss is how many events are missing since a place.
type Loss struct {
	Place  string `json:"place"`
	Events uint64 `json:"events"`
}

// A pipe is the programs of a pipeline, running.
type pipe struct {
	*rig
	tap, writer *service
	db          *database
	nats        *natsServer
	meter       meter
	port        int // of the tap
	to          sender
}

// Pipeline starts the programs of a pipeline, sends at a rate and waits until
// everything is stored. What happens is told on say.
func Pipeline(ctx context.Context, o PipelineOptions, say io.Writer) (_ *PipelineResult, err error) {
	defer interrupted(ctx, &err)
	events := int64(pace{rate: o.Rate}.total(o.Duration))
	if o.Rate < 1 || events < 1 {
		return nil, errors.New("nothing to send: --rate and --duration are to be above nought")
	}
	r, err := newRig(o.Place, 1<<30+events*bytesPerEvent, say)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	p, err := newPipe(ctx, r, o)
	if err != nil {
		return nil, err
	}
	if err := p.warmUp(ctx); err != nil {
		return nil, err
	}
	return p.measure(ctx, o)
}

// interrupted says in plain words that somebody has ended a run, which may show
// in many ways.
func interrupted(ctx context.Context, err *error) {
	if *err != nil && ctx.Err() != nil {
		*err = errors.New("interrupted; what the run had started has ended")
	}
}

// bytesPerEvent is about what an event takes on the disk: as a row, in the
// database's log, and in the stream.
const bytesPerEvent = 3200

// newPipe starts the programs.
func newPipe(ctx context.Context, r *rig, o PipelineOptions) (p *pipe, err error) {
	p = &pipe{rig: r, meter: meter{proc: hostProc()}}
	r.printf("starting %s database, nats-server, db-writer, tap in %s", o.Store, r.dir)
	if p.db, err = r.database(ctx, o.Store); err != nil {
		return nil, err
	}
	if p.nats, err = r.nats(ctx); err != nil {
		return nil, err
	}
	if p.writer, err = r.service(ctx, "db-writer", p.nats, []string{"SIPTRACE_STORE=" + p.db.url}); err != nil {
		return nil, err
	}
	if p.port, err = freePort("udp"); err != nil {
		return nil, err
	}
	in := "hep+udp://127.0.0.1:" + strconv.Itoa(p.port)
	if p.tap, err = r.service(ctx, "tap", p.nats, nil, "--in", in, "--data", r.dir, "--agent-name", "bench"); err != nil {
		return nil, err
	}
	p.meter.add("tap", p.tap.pid())
	p.meter.add("nats-server", p.nats.pid())
	p.meter.add("db-writer", p.writer.pid())
	if p.db.pid != 0 {
		p.meter.add("PostgreSQL", p.db.pid)
	}
	if p.to, err = dial(in); err != nil {
		return nil, err
	}
	r.ends = append(r.ends, p.to.Close)
	return p, nil
}

// warmUp sends a few events and sees them stored: the partition is made and
// every connection is there when it counts.
func (p *pipe) warmUp(ctx context.Context) error {
	const events = 1000
	base, err := p.counters(ctx)
	if err != nil {
		return err
	}
	traffic, err := NewTraffic(0, callsAtOnce, "warm-up")
	if err != nil {
		return err
	}
	if _, err := run(ctx, p.to, traffic, events, time.Second); err != nil {
		return err
	}
	end, err := p.settle(ctx, base, events)
	if err != nil {
		return err
	}
	if stored := end.rows - base.rows; stored != events {
		return fmt.Errorf("%d of %d events of the warm-up are stored; db-writer says:\n%s", stored, events, p.writer.lastWords())
	}
	return nil
}

// measure does what all of this is for.
func (p *pipe) measure(ctx context.Context, o PipelineOptions) (*PipelineResult, error) {
	name := "bench-" + strconv.FormatInt(time.Now().Unix(), 36)
	traffic, err := NewTraffic(uint64(time.Now().UnixNano()), callsAtOnce, name)
	if err != nil {
		return nil, err
	}
	base, err := p.counters(ctx)
	if err != nil {
		return nil, err
	}
	from, err := p.meter.read()
	if err != nil {
		return nil, err
	}
	p.printf("sending %d events a second for %v", o.Rate, o.Duration)
	load, err := run(ctx, p.to, traffic, o.Rate, o.Duration)
	if err != nil {
		return nil, err
	}
	p.printf("waiting until all is stored")
	end, err := p.settle(ctx, base, load.Sent)
	if err != nil {
		return nil, err
	}
	to, err := p.meter.read()
	if err != nil {
		return nil, err
	}
	r := &PipelineResult{Kind: "pipeline", Machine: thisMachine(), Rate: o.Rate, Cores: o.Cores, Sync: o.SyncAlways, Load: load}
	r.Machine.NATS, r.Machine.Database = p.nats.version, p.db.name
	r.Costs = p.meter.costs(from, to, load.Sent)
	if r.Memory, err = p.meter.proc.highWater(p.tap.pid()); err != nil {
		return nil, err
	}
	p.printf("counting rows")
	stored, err := p.db.count(ctx, name)
	if err != nil {
		return nil, err
	}
	r.conclude(base, end, stored)
	return r, nil
}

// conclude compares what was sent with what is stored.
func (r *PipelineResult) conclude(base, end counters, stored counted) {
	r.Rows, r.Stored = stored.rows, stored.events
	r.Lost = r.Sent - min(r.Stored, r.Sent)
	r.LostAt = end.losses(base, r.Lost)
	r.Whole = end.since.Sub(r.started)
	r.PerSecond = float64(r.Stored) / r.Whole.Seconds()
	if frames := end.frames - base.frames; frames > 0 {
		events := float64(end.published - base.published)
		r.Frame, r.Wire = events/float64(frames), float64(end.bytes-base.bytes)/events
	}
}
