package ctl

import (
	"context"
	"crypto/rand"
	"fmt"
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
		p.Seq, p.Events = 0, 0
	}
	if p.Seq > 0 && p.What != asked && !r.cmd.DryRun {
		return fmt.Errorf("replay %s was begun otherwise (%s); use another name, or --restart", p.Name, p.What)
	}
	if p.Seq > 0 {
		fmt.Fprintf(r.env.Stderr, "going on behind frame %s, where replay %s was at %s with %s\n",
			count(p.Seq), p.Name, p.When.Local().Format(time.DateTime), counted(p.Events, "event"))
	}
	p.What, p.Owner = asked, rand.Text()
	r.position = &p
	return nil
}

// keepPosition keeps how far the replay is, also when the command has to end.
func (r *replayJob) keepPosition(ctx context.Context) error {
	if r.position == nil || r.cmd.DryRun {
		return nil
	}
	ctx, cancel := outlive(ctx, keepTimeout)
	defer cancel()
	p := *r.position
	p.Events += uint64(r.insist.written - r.kept)
	p.Seq, p.When = r.out.LastSeq, time.Now().UTC()
	p, err := r.positions.Put(ctx, p)
	if err != nil {
		return err
	}
	r.position, r.kept = &p, r.insist.written
	return nil
}
