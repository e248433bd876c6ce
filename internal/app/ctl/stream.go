package ctl

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// StreamCmd is ctl stream.
type StreamCmd struct {
	Status StreamStatusCmd `cmd:"" help:"Show the streams: limits, fill, where their copies are, and who reads."`
	Apply  StreamApplyCmd  `cmd:"" help:"Change limits and replicas of the streams, or make those that are missing."`
}

// StreamApplyCmd is ctl stream apply.
type StreamApplyCmd struct {
	app.BusFlags
	Replicas    int          `help:"Copies of each stream and of the bucket: 1, or 3 on a cluster." env:"-" placeholder:"N"`
	MaxAge      app.Duration `help:"How long events are kept." env:"-" placeholder:"DURATION"`
	MaxSize     app.Size     `help:"How much of them is kept." env:"-" placeholder:"SIZE"`
	Duplicates  app.Duration `help:"How long a frame is recognised that is published again." env:"-" placeholder:"DURATION"`
	Compression string       `help:"s2 or none, on the server's disk; taps compress already." enum:"s2,none," default:"" env:"-" placeholder:"KIND"`
	Storage     string       `help:"file or memory, where the stream is made; that of one that exists cannot be changed." enum:"file,memory," default:"" env:"-" placeholder:"KIND"`
	Shards      int          `help:"Streams to spread events over, where none are there yet; the number cannot be changed later." env:"-" placeholder:"N"`
	Durable     []string     `help:"Also make this durable consumer where it is missing, repeatable: for workers that may not." env:"-" placeholder:"NAME"`
	Yes         bool         `help:"Do it: without this flag it is only said what would change." env:"-"`
}

// Help is the end of ctl stream apply --help.
func (*StreamApplyCmd) Help() string {
	return `What no flag names stays as it is. Replicas are those of all streams, everything else is
of the stream of events: of each, where there are shards, and the size of all of them together.

Examples:
  ctl stream apply                                makes what is missing, once it is told --yes
  ctl stream apply --replicas 3                   says what would change
  ctl stream apply --max-age 7d --max-size 50GB --yes
  ctl stream apply --durable db-writer --yes      for a db-writer that may not make its own`
}

// Run shows the differences and, if told so, makes them.
func (c *StreamApplyCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	plans, err := conn.PlanStreams(env, bus.StreamChange{
		Replicas:    c.Replicas,
		MaxAge:      time.Duration(c.MaxAge),
		MaxBytes:    int64(c.MaxSize),
		Duplicates:  time.Duration(c.Duplicates),
		Compression: c.Compression,
		Storage:     c.Storage,
		Shards:      c.Shards,
	})
	if err != nil {
		return err
	}
	workers, err := c.missing(env, conn, streams(plans))
	if err != nil {
		return err
	}
	changes, refused := sayPlans(env.Stdout, plans)
	for _, w := range workers {
		fmt.Fprintf(env.Stdout, "durable consumer %s: will be made\n", w.name)
		changes++
	}
	switch {
	case refused:
		fmt.Fprintln(env.Stderr, "nothing was changed")
		return leave(app.ExitFailed)
	case changes == 0:
		fmt.Fprintln(env.Stderr, "everything is as wanted")
		return nil
	case !c.Yes:
		fmt.Fprintln(env.Stderr, "nothing was changed; do it with --yes")
		return leave(app.ExitFailed)
	}
	if err := conn.ApplyStreams(env, plans); err != nil {
		return err
	}
	for _, w := range workers {
		if err := w.Ensure(env); err != nil {
			return err
		}
	}
	fmt.Fprintf(env.Stderr, "%s made\n", counted(changes, "change"))
	return nil
}

// A durable is a consumer that is to be made.
type durable struct {
	name string
	*bus.Consumer
}

// streams is how many streams of events there are, or would be.
func streams(plans []bus.StreamPlan) (n int) {
	for i := range plans {
		if plans[i].OfEvents() {
			n++
		}
	}
	return n
}

// missing are the durables that are asked for and not there in every stream.
func (c *StreamApplyCmd) missing(env *Env, conn *bus.Conn, streams int) ([]durable, error) {
	if len(c.Durable) == 0 {
		return nil, nil
	}
	there, err := conn.Consumers(env)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	var out []durable
	for _, name := range c.Durable {
		if slices.ContainsFunc(there, func(s bus.ConsumerStatus) bool { return s.Name == name && s.Streams == streams }) {
			continue
		}
		w, err := bus.NewConsumer(conn, bus.ConsumerOptions{Durable: name}, bus.NewRejects(conn), nil, env.log())
		if err != nil {
			return nil, app.UsageError{Err: err}
		}
		out = append(out, durable{name, w})
	}
	return out, nil
}

// sayPlans prints what would change and what cannot.
func sayPlans(w io.Writer, plans []bus.StreamPlan) (changes int, refused bool) {
	for _, p := range plans {
		if p.Make {
			fmt.Fprintf(w, "stream %s: will be made\n", p.Stream)
			changes++
		}
		if len(p.Refused) > 0 {
			for _, err := range p.Refused {
				fmt.Fprintln(w, err)
			}
			refused = true
			continue
		}
		for _, d := range p.Differences {
			fmt.Fprintf(w, "stream %s: %s from %s to %s\n", d.Stream, d.Setting, d.Have, d.Want)
			changes++
		}
		if p.Discards > 0 {
			fmt.Fprintf(w, "stream %s: discards the oldest %s at once, read or not\n", p.Stream, humanize.IBytes(p.Discards))
		}
	}
	return changes, refused
}
