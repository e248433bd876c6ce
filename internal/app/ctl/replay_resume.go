package ctl

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// keepTimeout is how long a position may take to be kept when the command has
// to end.
const keepTimeout = 5 * time.Second

// resume looks up the position that an earlier run has left.
func (r *replayJob) resume(ctx context.Context) error {
	if r.cmd.Resume != bus.Token(r.cmd.Resume) {
		return app.Usagef("--resume %q: use letters, digits, '-' and '_', at most 32 of them", r.cmd.Resume)
	}
	r.positions = bus.NewReplayPositions(r.conn)
	p, err := r.positions.Get(ctx, r.cmd.Resume)
	if err != nil {
		return err
	}
	asked := r.cmd.asked()
	if r.cmd.Restart {
		p.Places, p.Events = nil, 0
	}
	begun := len(p.Places) > 0
	if begun && p.What != asked && !r.cmd.DryRun {
		return fmt.Errorf("replay %s was begun otherwise (%s); use another name, or --restart", p.Name, p.What)
	}
	if begun {
		fmt.Fprintf(r.env.Stderr, "going on %s, where replay %s was at %s with %s\n",
			r.stretches.behind(&p), p.Name, p.When.Local().Format(time.DateTime), counted(p.Events, "event"))
	}
	p.What, p.Owner = asked, rand.Text()
	r.position = &p
	return nil
}

// sameStreams makes sure that the places of an earlier run are in the streams
// that there are.
func (r *replayJob) sameStreams() error {
	if r.position == nil {
		return nil
	}
	for _, p := range r.position.Places {
		same := func(s bus.Stretch) bool { return s.Stream == p.Stream && s.Created.Equal(p.Created) }
		if !slices.ContainsFunc(r.stretches.all, same) {
			return fmt.Errorf("the stream %s was made anew since replay %s was at frame %d; begin anew with --restart", p.Stream, r.position.Name, p.Seq)
		}
	}
	return nil
}

// keepBeginning keeps a position before anything is replayed: a position that
// cannot be kept is known now, and a file that was begun is gone on with.
func (r *replayJob) keepBeginning() error {
	ctx, cancel := context.WithTimeout(r.env, readyTimeout)
	defer cancel()
	return r.keepPosition(ctx)
}

// keepPosition keeps how far the replay is, also when the command has to end.
func (r *replayJob) keepPosition(ctx context.Context) error {
	if r.position == nil || r.cmd.DryRun {
		return nil
	}
	ctx, cancel := outlive(ctx, keepTimeout)
	defer cancel()
	written := 0
	if r.insist != nil {
		written = r.insist.written
	}
	p := *r.position
	p.Events += uint64(written - r.kept)
	p.Places, p.When = r.stretches.places(), time.Now().UTC()
	p, err := r.positions.Put(ctx, p)
	if err != nil {
		return err
	}
	r.position, r.kept = &p, written
	return nil
}
