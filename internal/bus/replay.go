package bus

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// ReplayOptions say in what portions stretches are written. Zero values are
// the defaults.
type ReplayOptions struct {
	BatchEvents int // a batch is written at about this many events (5,000)
	BatchBytes  int // or bytes (16 MiB)

	// Written is told of each batch that the sink has taken; its error ends Run.
	Written func(ctx context.Context, p Portion) error
}

// Portion is what one Write of a [Replay] brought.
type Portion struct {
	Done      []uint64  // of each stretch: every frame up to this one is done with
	Stored    time.Time // when the last frame of the portion was stored
	Frames    int       // frames read
	Events    int       // in them
	Unread    int       // messages that are no frames, left out
	Discarded uint64    // frames that a stream discarded before they could be read
}

// Replay is a source that reads stretches once more, to their ends. Nothing is
// acknowledged and no worker notices.
type Replay struct {
	conn      *Conn
	stretches []Stretch
	opts      ReplayOptions
	log       *slog.Logger
}

// NewReplay returns a replay; [Replay.Run] reads.
func NewReplay(conn *Conn, stretches []Stretch, o ReplayOptions, log *slog.Logger) *Replay {
	o.BatchEvents = cmp.Or(o.BatchEvents, 5000)
	o.BatchBytes = cmp.Or(o.BatchBytes, 16<<20)
	if o.Written == nil {
		o.Written = func(context.Context, Portion) error { return nil }
	}
	return &Replay{conn, stretches, o, log}
}

// Run writes the stretches to sink, each frame once, and returns nil at their
// end or when ctx ends. Each stretch is in the order of its stream, and so
// every call is; between them, the frame that was stored first goes first. An
// error of the sink ends it; that NATS goes away does not.
func (r *Replay) Run(ctx context.Context, sink trace.Sink) error {
	run := replayRun{Replay: r, sink: sink}
	for _, s := range r.stretches {
		run.lanes = append(run.lanes, &lane{Stretch: s, next: max(s.First, 1)})
	}
	for pause := minBackoff; ctx.Err() == nil && run.left(); pause = min(2*pause, maxBackoff) {
		if r.conn.await(ctx) != nil {
			break
		}
		before := run.writes
		err := run.frames(ctx)
		if run.writes != before {
			pause = minBackoff
		}
		if run.failed != nil {
			return run.failed
		}
		if err != nil && ctx.Err() == nil {
			r.log.Warn("reading the stream, trying again", "stream", StreamName, "err", plain(err))
			sleep(ctx, pause)
		}
	}
	return nil
}

// replayRun is one Run: where it is.
type replayRun struct {
	*Replay
	sink   trace.Sink
	lanes  []*lane
	writes int   // that the sink has taken
	failed error // of the sink, or of Written

	batch   batch
	portion Portion
}

// left reports whether there is more to write.
func (r *replayRun) left() bool {
	for _, l := range r.lanes {
		if l.next <= l.Last {
			return true
		}
	}
	return false
}

// frames writes frames until the stretches are at their ends. An error that is
// not kept in failed may be gone at the next attempt.
func (r *replayRun) frames(ctx context.Context) error {
	r.begin()
	defer func() {
		for _, l := range r.lanes {
			l.close()
		}
	}()
	for _, l := range r.lanes {
		discarded, err := l.open(ctx, r.conn, len(r.lanes))
		r.portion.Discarded += discarded
		if err != nil {
			return err
		}
	}
	for {
		l, err := r.oldest(ctx)
		if ctx.Err() != nil {
			return ctx.Err() // what is not written yet is read again by whoever goes on
		}
		if err != nil {
			return errors.Join(err, r.write(ctx))
		}
		if l == nil {
			return r.write(ctx)
		}
		r.take(l)
		if len(r.batch.events) >= r.opts.BatchEvents || r.batch.bytes >= r.opts.BatchBytes {
			if err := r.write(ctx); err != nil {
				return err
			}
		}
	}
}

// begin begins a batch.
func (r *replayRun) begin() {
	r.batch.reset()
	r.portion = Portion{}
}

// oldest returns the lane whose next frame was stored first, or nil when all
// are at their ends.
func (r *replayRun) oldest(ctx context.Context) (*lane, error) {
	var first *lane
	for _, l := range r.lanes {
		discarded, err := l.fetch(ctx)
		if errors.Is(err, errSilent) {
			discarded, err = r.silent(ctx, l)
		}
		r.portion.Discarded += discarded
		if err != nil {
			return nil, err
		}
		if l.head != nil && (first == nil || l.stored.Before(first.stored)) {
			first = l
		}
	}
	return first, nil
}

// silent finds out why no frame of a lane comes: the rest of its stretch may
// have been discarded meanwhile.
func (r *replayRun) silent(ctx context.Context, l *lane) (discarded uint64, err error) {
	s, err := r.conn.js.Stream(ctx, l.Stream)
	if err != nil {
		return 0, err
	}
	if s.CachedInfo().State.FirstSeq > l.Last {
		return l.skip(l.Last + 1), nil
	}
	return 0, errSilent
}

// take takes the next frame of a lane into the batch.
func (r *replayRun) take(l *lane) {
	msg := l.head
	r.batch.add(msg)
	r.portion.Frames = len(r.batch.frames)
	if n := len(r.batch.unreads); n > r.portion.Unread {
		r.portion.Unread = n
		r.log.Warn("message is no frame, left out", "stream", l.Stream, "seq", l.read, "subject", msg.Subject(), "err", r.batch.unreads[n-1].err)
	}
	r.portion.Stored = l.stored
	l.taken()
}

// write writes the batch and begins the next.
func (r *replayRun) write(ctx context.Context) error {
	done := make([]uint64, len(r.lanes))
	moved := false
	for i, l := range r.lanes {
		done[i] = l.read - 1
		moved = moved || l.read != l.next
	}
	if !moved {
		return nil
	}
	if len(r.batch.events) > 0 {
		if err := r.sink.Write(ctx, r.batch.events); err != nil {
			if ctx.Err() == nil {
				r.failed = err
			}
			return err
		}
	}
	r.writes++
	for _, l := range r.lanes {
		l.next = l.read
	}
	r.portion.Done, r.portion.Events = done, len(r.batch.events)
	if err := r.opts.Written(ctx, r.portion); err != nil {
		r.failed = err
		return err
	}
	r.begin()
	return nil
}
