package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RejectRetryCmd is ctl reject retry.
type RejectRetryCmd struct {
	RejectFlags
	Seqs         []uint64     `arg:"" optional:"" name:"seq" help:"Numbers of rejects, as list shows them. Default: all that the flags choose."`
	To           string       `help:"The target that refused them: the database (postgres://USER@HOST/DB, sqlite:FILE), or a collector as hep-forwarder has it." env:"-" placeholder:"TARGET" xor:"way"`
	ViaStream    bool         `help:"Put them into the stream again, for db-writer to take: for a database that cannot be reached from here. Whether it takes them, list says later." env:"-" xor:"way"`
	CreateTables bool         `help:"A database: make tables that do not exist." env:"-"`
	Retry        app.Duration `help:"How long to go on trying when the target takes nothing." default:"1m" env:"-" placeholder:"DURATION"`
}

// Help is the end of ctl reject retry --help.
func (*RejectRetryCmd) Help() string {
	return `Writes rejects straight to the target that refused them, says what became of each, and removes those that it has taken.
What is refused once more stays. No other worker sees the events again.
Examples:
  ctl reject retry --to postgres://siptrace@db/siptrace --reason "unknown table"
  ctl reject retry --to hep+tcp://homer:9060 --since 1h
  ctl reject retry 17 18 --via-stream`
}

// forwarderPrefix begins the names of hep-forwarder's durables; all others are
// databases'.
const forwarderPrefix = "fwd-"

// Run retries.
func (c *RejectRetryCmd) Run(env *Env) error {
	mine, err := c.workers()
	if err != nil {
		return err
	}
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	job := retryJob{cmd: c, env: env, rejects: bus.NewRejects(conn), refused: newInsistent(nil, 0, nil)}
	list, err := job.choose(conn, mine)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(env.Stderr, "no such rejects")
		return job.tell()
	}
	if c.ViaStream {
		err = job.viaStream(list)
	} else {
		err = job.direct(list)
	}
	if err != nil {
		fmt.Fprintf(env.Stderr, "%s taken and removed before that; the rest stay\n", counted(job.taken, "reject"))
		return err
	}
	return job.tell()
}

// workers says whose rejects the target can take, for a reject that one
// target has refused is of no use to another.
func (c *RejectRetryCmd) workers() (mine func(worker string) bool, err error) {
	database := func(worker string) bool { return !strings.HasPrefix(worker, forwarderPrefix) }
	if c.ViaStream {
		if strings.HasPrefix(c.Worker, forwarderPrefix) {
			return nil, app.Usagef("--via-stream: other collectors would get the events a second time; name the collector with --to")
		}
		return database, nil
	}
	if c.To == "" {
		return nil, app.Usagef("no target: name the database or the collector with --to, or use --via-stream")
	}
	kind, err := c.target().kind()
	switch {
	case err != nil:
		return nil, err
	case kind == toFile:
		return nil, app.Usagef("--to %s: a file is not what refused them; ctl reject list --json writes them to one", c.To)
	case c.CreateTables && kind != toStore:
		return nil, app.Usagef("--create-tables goes with a database")
	case kind == toStore:
		return database, nil
	case c.Worker != "":
		return func(worker string) bool { return worker == c.Worker }, nil
	}
	d, err := forward.ParseDestination(c.To)
	if err != nil {
		return nil, err
	}
	// Where a name is too long its host is cut: the digest at the end tells
	// destinations apart.
	digest := d.Name()[strings.LastIndexByte(d.Name(), '-'):]
	return func(worker string) bool {
		return strings.HasPrefix(worker, forwarderPrefix) && strings.HasSuffix(worker, digest)
	}, nil
}

func (c *RejectRetryCmd) target() *TargetFlags { return &TargetFlags{To: c.To, Retry: c.Retry} }

// A retryJob is one ctl reject retry.
type retryJob struct {
	cmd     *RejectRetryCmd
	env     *Env
	rejects *bus.Rejects

	taken    int
	noEvents int // rejects that are no events
	others   int // rejects of workers that have another target
	refused  *insistent
}

// choose returns the rejects to retry.
func (j *retryJob) choose(conn *bus.Conn, mine func(worker string) bool) ([]bus.StoredReject, error) {
	var list []bus.StoredReject
	add := func(r *bus.StoredReject) error {
		switch {
		case !mine(r.Worker):
			j.others++
		case r.Event == nil:
			j.noEvents++
		default:
			list = append(list, *r)
		}
		return nil
	}
	for _, seq := range j.cmd.Seqs {
		r, err := j.rejects.Get(j.env, seq)
		if err != nil {
			return nil, err
		}
		_ = add(&r) // never fails
	}
	if len(j.cmd.Seqs) > 0 {
		return list, nil
	}
	_, err := j.cmd.each(j.env, conn, add)
	return list, err
}

// retryBatch is how many rejects are written together.
const retryBatch = 500

// direct writes rejects to the target and removes those that it has taken.
func (j *retryJob) direct(list []bus.StoredReject) error {
	t, err := j.cmd.target().open(j.env, targetOptions{createTables: j.cmd.CreateTables})
	if err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(j.env.Stderr, format+"\n", args...) }
	sink := newInsistent(t, time.Duration(j.cmd.Retry), say)
	for len(list) > 0 && err == nil && j.env.Err() == nil {
		n := min(len(list), retryBatch)
		err = j.write(sink, list[:n])
		list = list[n:]
	}
	return errors.Join(err, j.env.Err(), t.close())
}

// write writes some rejects to a sink. They are removed when they are safe there.
func (j *retryJob) write(sink *insistent, list []bus.StoredReject) error {
	events := make([]trace.Event, len(list))
	for i := range list {
		events[i] = *list[i].Event
		events[i].Flags &^= trace.NoDuplicate | trace.NoStore // it was meant for this target
	}
	rejected, err := sink.try(j.env, events)
	if err != nil {
		return err
	}
	stay := make(map[int]bool)
	for _, r := range rejected {
		stay[r.Index] = true
		j.refused.refuse(r)
	}
	var done []uint64
	for i := range list {
		if !stay[i] {
			done = append(done, list[i].Seq)
		}
	}
	return j.remove(done)
}

// remove removes rejects, also when the command has to end.
func (j *retryJob) remove(seqs []uint64) error {
	ctx, cancel := outlive(j.env, lastWrite)
	defer cancel()
	if err := j.rejects.Delete(ctx, seqs...); err != nil {
		return fmt.Errorf("%s taken but not removed, which does no harm: %w", counted(len(seqs), "reject"), err)
	}
	j.taken += len(seqs)
	return nil
}

// viaStream puts rejects into the stream of events again and removes them.
func (j *retryJob) viaStream(list []bus.StoredReject) error {
	for i := range list {
		if err := j.env.Err(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(j.env, natsTimeout)
		err := j.rejects.Retry(ctx, &list[i])
		cancel()
		if err == nil {
			err = j.remove([]uint64{list[i].Seq})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tell says what came of it.
func (j *retryJob) tell() error {
	w := j.env.Stderr
	if j.taken > 0 && j.cmd.ViaStream {
		fmt.Fprintf(w, "%s back in the stream; what is refused again is in ctl reject list\n", counted(j.taken, "event"))
	} else if j.taken > 0 {
		fmt.Fprintf(w, "%s taken and removed\n", counted(j.taken, "reject"))
	}
	if j.noEvents > 0 {
		fmt.Fprintf(w, "%s left: no events; ctl reject show says what they are\n", counted(j.noEvents, "reject"))
	}
	if j.others > 0 {
		fmt.Fprintf(w, "%s left: of workers with another target; see ctl reject list --count\n", counted(j.others, "reject"))
	}
	if n, reasons := j.refused.refusals(); n > 0 {
		fmt.Fprintf(w, "refused again, and left: %s\n", reasons)
		return leave(app.ExitFailed)
	}
	return nil
}
