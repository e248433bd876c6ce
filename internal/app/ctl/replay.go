package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// ReplayCmd is ctl replay.
type ReplayCmd struct {
	app.BusFlags
	TargetFlags
	StretchFlags
	FilterFlags
	Agent        string `help:"Only what this agent has captured: its name or capture id." env:"-" placeholder:"AGENT"`
	Table        string `help:"A database: put every event into this table, whatever it says itself." env:"-" placeholder:"TABLE"`
	CreateTables bool   `help:"A database: make tables that do not exist." env:"-"`
	AllEvents    bool   `help:"Also what rules keep from such a target: not to be stored, not to be duplicated, or sent elsewhere instead." env:"-"`
	DryRun       bool   `help:"Only count what would be replayed." env:"-"`
	Resume       string `help:"Keep the position under this name, and go on there if there is one." env:"-" placeholder:"NAME"`
	Restart      bool   `help:"With --resume: begin anew whatever position there is." env:"-"`
	UTC          bool   `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
	JSON         bool   `name:"json" help:"Print what came of it as one JSON object." env:"-"`
}

// Help is the end of ctl replay --help.
func (*ReplayCmd) Help() string {
	return `Reads the stream once more, beside the workers and without their noticing, and writes to a target what is selected.
A database takes each event once: replaying what it has already changes nothing, so a hole is filled by replaying around it.
Examples:
  ctl replay --since 2h --dry-run                                   what is there?
  ctl replay --to postgres://siptrace@db/siptrace --from 08:00 --to-time 09:30
  ctl replay --to hep+tcp://homer:9060 --rate 500/s --resume homer
  ctl replay --to pcap:call.pcap --call-id 8f3c@pbx`
}

// Run replays.
func (c *ReplayCmd) Run(env *Env) error {
	r, err := c.plan(time.Now())
	if err != nil {
		return err
	}
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	r.conn, r.env = conn, env
	if err := r.locate(env); err != nil {
		return err
	}
	return r.run()
}

// plan checks what can be checked without a server.
func (c *ReplayCmd) plan(now time.Time) (*replayJob, error) {
	r := &replayJob{cmd: c}
	var err error
	if r.query.From, r.query.To, err = c.bounds(now); err != nil {
		return nil, err
	}
	if err := c.apply(&r.query); err != nil {
		return nil, err
	}
	if !c.DryRun || c.To != "" {
		if r.kind, err = c.kind(); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Table != "" && r.kind != toStore, c.CreateTables && r.kind != toStore:
		return nil, app.Usagef("--table and --create-tables go with a database, not with --to %s", app.Redact(c.To))
	case c.JSON && c.stdout():
		return nil, app.Usagef("--json and --to %s would both write to standard output", c.To)
	case c.Restart && c.Resume == "":
		return nil, app.Usagef("--restart goes with --resume")
	case c.Resume != "" && c.FromSeq > 0:
		return nil, app.Usagef("--resume and --from-seq both say where to begin")
	}
	return r, nil
}

// A replayJob is one ctl replay.
type replayJob struct {
	cmd   *ReplayCmd
	env   *Env
	conn  *bus.Conn
	query trace.Query
	kind  targetKind

	position  *bus.ReplayPosition // nil without --resume
	positions *bus.ReplayPositions
	kept      int // of insist.written, how many the position knows
	stretches stretches

	chosen   *selection
	insist   *insistent // nil in a dry run
	progress *progress
	out      outcome
}

// locate finds the stretches of the streams, and where an earlier run has ended.
func (r *replayJob) locate(ctx context.Context) error {
	want := r.cmd.frames(r.query.From, r.query.To)
	if r.cmd.Resume != "" {
		if err := r.resume(ctx); err != nil {
			return err
		}
		want.Behind = make(map[string]uint64)
		for _, p := range r.position.Places {
			want.Behind[p.Stream] = p.Seq
		}
	}
	var err error
	r.stretches.all, err = r.conn.Stretches(ctx, want)
	switch {
	case errors.Is(err, bus.ErrSharded):
		return app.UsageError{Err: fmt.Errorf("--from-seq and --to-seq want --shard: %w", err)}
	case errors.Is(err, bus.ErrNoShard):
		return app.UsageError{Err: fmt.Errorf("--shard: %w", err)}
	case err != nil:
		return fmt.Errorf("%w; has a tap or db-writer been started with this --nats?", err)
	}
	r.stretches.begin()
	return r.sameStreams()
}

// run replays the stretches.
func (r *replayJob) run() (err error) {
	r.out = outcome{verb: "replayed", Discarded: r.stretches.discarded()}
	r.out.reached(&r.stretches)
	r.chosen = &selection{
		query: r.query, tail: TailCmd{Agent: r.cmd.Agent}, table: r.cmd.Table, all: r.cmd.AllEvents, census: newCensus(),
	}
	if r.stretches.frames() == 0 {
		return r.nothing()
	}
	if !r.cmd.DryRun {
		t, err := r.cmd.open(r.env, r.targetOptions())
		if err != nil {
			return err
		}
		return r.runTo(t)
	}
	if r.cmd.To != "" {
		r.chosen.respectRules(r.kind)
	}
	r.announce("reading")
	elapsed, err := r.read(r.chosen)
	if err != nil {
		return err
	}
	r.out.take(r.chosen, nil, elapsed)
	return r.tell()
}

func (r *replayJob) targetOptions() targetOptions {
	return targetOptions{
		table:        r.cmd.Table,
		createTables: r.cmd.CreateTables,
		append:       r.position != nil && len(r.position.Places) > 0,
	}
}

// runTo replays the stretches to a target.
func (r *replayJob) runTo(t *target) error {
	if err := r.keepBeginning(); err != nil {
		return errors.Join(err, t.close())
	}
	r.announce("replaying to " + t.name + ":")
	r.out.Target = t.name
	r.chosen.respectRules(t.kind)
	r.insist = newInsistent(t, time.Duration(r.cmd.Retry), func(format string, args ...any) { r.progress.say(format, args...) })
	r.chosen.out = r.cmd.Rate.pace(r.insist)
	r.chosen.sorted = t.kind == toFile
	elapsed, err := r.read(r.chosen)
	err = errors.Join(err, t.close())
	r.out.take(r.chosen, r.insist, elapsed)
	t.result(&r.out)
	if err != nil {
		fmt.Fprintf(r.env.Stderr, "replayed %s; %s\n", r.stretches.upTo(), r.howToGoOn())
		return err
	}
	return r.tell()
}

// read reads the stretches into a sink, showing how far it is.
func (r *replayJob) read(sink trace.Sink) (elapsed time.Duration, err error) {
	r.progress = startProgress(r.env.Stderr, float64(r.stretches.frames()))
	defer func() { elapsed = r.progress.stop() }()
	r.chosen.told = r.progress.add
	defer r.watchNATS()()
	o := bus.ReplayOptions{Written: r.written}
	if r.cmd.Rate > 0 {
		o.BatchEvents = min(r.cmd.Rate.portion(), 5000)
	}
	err = bus.NewReplay(r.conn, r.stretches.all, o, r.progress.log()).Run(r.env, sink)
	r.out.Stopped = r.stretches.left() > 0
	r.out.next = r.howToGoOn()
	return 0, err
}

// watchNATS says when NATS is away, and when it is back, until stop.
func (r *replayJob) watchNATS() (stop func()) {
	ctx, cancel := context.WithCancel(r.env)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for away := false; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := r.conn.Check(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !away:
				r.progress.say("%v", err)
			case err == nil && away:
				r.progress.say("NATS is back, going on")
			}
			away = err != nil
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// written keeps account of a batch that the target has.
func (r *replayJob) written(ctx context.Context, p bus.Portion) error {
	r.stretches.done = p.Done
	r.out.reached(&r.stretches)
	r.out.Frames += p.Frames
	r.out.Unread += p.Unread
	r.out.Discarded += p.Discarded
	r.progress.at(float64(r.stretches.frames()-r.stretches.left()), r.stretches.where())
	return r.keepPosition(ctx)
}

// announce says what is about to be read.
func (r *replayJob) announce(verb string) {
	line := verb + " " + r.stretches.String()
	if !r.query.From.IsZero() || !r.query.To.IsZero() {
		line += fmt.Sprintf(", stored up to %v before and after the range", r.cmd.Slack)
	}
	fmt.Fprintln(r.env.Stderr, line)
}

// nothing says that there is nothing to replay, which is no failure, unless
// it was there once.
func (r *replayJob) nothing() error {
	why := r.stretches.why()
	if r.position != nil && len(r.position.Places) > 0 {
		why = fmt.Sprintf("there are no such frames %s, where replay %s is", r.stretches.behind(r.position), r.position.Name)
	}
	fmt.Fprintf(r.env.Stderr, "nothing to replay: %s\n", why)
	if r.out.Discarded > 0 { // which is said once
		if err := r.keepBeginning(); err != nil {
			return err
		}
	}
	if r.cmd.JSON {
		return r.tell()
	}
	for _, note := range r.out.notes() {
		fmt.Fprintln(r.env.Stderr, note)
	}
	return r.out.exit()
}

// tell says what came of it.
func (r *replayJob) tell() error {
	if r.cmd.DryRun && !r.cmd.JSON && r.out.Census != nil {
		fmt.Fprintf(r.env.Stdout, "selected  %s of %s in %s\n", counted(r.out.Census.Events, "event"), count(r.out.Read),
			r.out.frames())
		if err := r.out.Census.print(r.env.Stdout, r.cmd.UTC); err != nil {
			return err
		}
		for _, note := range r.out.notes() {
			fmt.Fprintln(r.env.Stderr, note)
		}
		return r.out.exit()
	}
	return r.out.tell(r.env, r.cmd.JSON)
}

// howToGoOn is what to type to go on where this run has ended.
func (r *replayJob) howToGoOn() string {
	if r.position != nil {
		return fmt.Sprintf("the same command goes on there: --resume %s", r.position.Name)
	}
	return "go on with " + r.stretches.goOn()
}

// asked is what was asked for, in words that are the same when the same is
// asked for again.
func (c *ReplayCmd) asked() string {
	words := []string{"to " + app.Redact(c.To)}
	for _, f := range []struct{ name, value string }{
		{"since", zero(c.Since.String(), "0s")}, {"from", c.From}, {"to-time", c.ToTime}, {"agent", c.Agent},
		{"call-id", c.CallID}, {"user", c.User}, {"method", c.Method}, {"addr", c.Addr}, {"table", c.Table},
	} {
		if f.value != "" {
			words = append(words, f.name+" "+f.value)
		}
	}
	if c.Shard != nil {
		words = append(words, fmt.Sprintf("shard %d", *c.Shard))
	}
	if c.AllEvents {
		words = append(words, "all events")
	}
	return strings.Join(words, ", ")
}

// zero is s, or nothing if s is the word for nothing.
func zero(s, nothing string) string {
	if s == nothing {
		return ""
	}
	return s
}
