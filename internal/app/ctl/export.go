package ctl

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// ExportCmd is ctl export.
type ExportCmd struct {
	StoreFlags
	RangeFlags
	FilterFlags
	TargetFlags
	Limit  int  `help:"The newest so many messages; 0 for all." default:"0" env:"-"`
	DryRun bool `help:"Only count what would be exported." env:"-"`
	UTC    bool `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
	JSON   bool `name:"json" help:"Print what came of it as one JSON object." env:"-"`
}

// Help is the end of ctl export --help.
func (*ExportCmd) Help() string {
	return `Examples:
  ctl export --to pcap:call.pcap --call-id 8f3c@pbx && wireshark call.pcap
  ctl export --to json:- --since 1h --method REGISTER | jq -r .from_user
  ctl export --store postgres://siptrace@db/siptrace --to hep:tuesday.hep --from 2026-11-17 --to-time 2026-11-18
  ctl export --to hep+tcp://homer:9060 --since 2h --rate 500/s`
}

// How much is read from the database before it is written.
const (
	exportEvents = 500
	exportBytes  = 4 << 20
)

// Run exports.
func (c *ExportCmd) Run(env *Env) error {
	q := trace.Query{Table: c.Table, Limit: c.Limit}
	var err error
	if q.From, q.To, err = c.bounds(time.Now()); err != nil {
		return err
	}
	if err := c.apply(&q); err != nil {
		return err
	}
	if !c.DryRun || c.To != "" {
		if _, err := c.kind(); err != nil {
			return err
		}
	}
	if c.JSON && c.stdout() {
		return app.Usagef("--json and --to %s would both write to standard output", c.To)
	}
	s, err := c.reader()
	if err != nil {
		return err
	}
	defer s.Close()
	x := exportJob{cmd: c, env: env, chosen: &selection{census: newCensus()}, found: s.Find(env, q)}
	if c.DryRun {
		return x.count()
	}
	t, err := c.open(env, targetOptions{})
	if err != nil {
		return err
	}
	return x.runTo(t)
}

// An exportJob is one ctl export.
type exportJob struct {
	cmd      *ExportCmd
	env      *Env
	found    iter.Seq2[trace.Event, error]
	chosen   *selection
	progress *progress
	last     time.Time // capture time of the last event that is written
	out      outcome
}

// count only counts.
func (x *exportJob) count() error {
	elapsed, err := x.read()
	if err != nil {
		return err
	}
	x.out.take(x.chosen, nil, elapsed)
	if x.cmd.JSON {
		return x.out.tell(x.env, true)
	}
	fmt.Fprintf(x.env.Stdout, "selected  %s\n", counted(x.out.Read, "event"))
	return x.out.Census.print(x.env.Stdout, x.cmd.UTC)
}

// runTo exports to a target.
func (x *exportJob) runTo(t *target) error {
	x.out = outcome{verb: "exported", Target: t.name}
	insist := newInsistent(t, time.Duration(x.cmd.Retry), func(format string, args ...any) { x.progress.say(format, args...) })
	x.chosen.out = x.cmd.Rate.pace(insist)
	elapsed, err := x.read()
	err = errors.Join(err, t.close())
	x.out.take(x.chosen, insist, elapsed)
	t.result(&x.out)
	if err != nil {
		return err
	}
	if x.out.Read == 0 && t.drop != nil {
		err = t.drop() // or the next attempt would find it there
	}
	if x.out.Read == 0 && !x.out.Stopped && !x.cmd.JSON {
		return errors.Join(none("messages", &x.cmd.RangeFlags), err)
	}
	return errors.Join(x.out.tell(x.env, x.cmd.JSON), err)
}

// read brings what is found into the selection, in portions.
func (x *exportJob) read() (elapsed time.Duration, err error) {
	x.progress = startProgress(x.env.Stderr, 0)
	defer func() { elapsed = x.progress.stop() }()
	x.chosen.told = x.progress.add
	var batch []trace.Event
	size := 0
	for e, err := range x.found {
		if err == nil {
			batch = append(batch, e)
			size += len(e.Payload)
			if len(batch) < exportEvents && size < exportBytes {
				continue
			}
			err = x.write(batch)
			batch, size = batch[:0], 0
		}
		if x.stopped() {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
	}
	if err := x.write(batch); err != nil && !x.stopped() {
		return 0, err
	}
	return 0, nil
}

func (x *exportJob) write(batch []trace.Event) error {
	if len(batch) == 0 {
		return nil
	}
	if err := x.chosen.Write(x.env, batch); err != nil {
		return err
	}
	x.last = batch[len(batch)-1].Time
	return nil
}

// stopped reports whether the command has to end, and notes how to go on.
func (x *exportJob) stopped() bool {
	if x.env.Err() == nil {
		return false
	}
	x.out.Stopped = true
	if !x.last.IsZero() {
		x.out.next = "go on with --from " + x.last.UTC().Format(time.RFC3339Nano)
	}
	return true
}
