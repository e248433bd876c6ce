package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// ReplayRange says what is wanted of the stream. The zero value is all of it,
// up to its end as it is now.
type ReplayRange struct {
	First, Last  uint64    // frames by their sequence, both included; 0 is the stream's own
	Since, Until time.Time // frames by when they were stored: Since ≤ t < Until; zero is without bound
}

// Stretch is a part of the stream that was found there.
type Stretch struct {
	Created     time.Time // of the stream: another time is another stream
	First, Last uint64    // sequences of the frames; there are none if Last is below First
	Discarded   uint64    // frames from ReplayRange.First on that the stream has not any more
}

// Frames is how many frames the stretch has.
func (s Stretch) Frames() uint64 {
	if s.Last < s.First {
		return 0
	}
	return s.Last - s.First + 1
}

// ErrSharded is returned for a stretch of a fleet whose events are spread over
// several streams: its frames have no common order to go by.
var ErrSharded = errors.New("replay reads one stream, and events are spread over several")

// Stretch looks up what there is of a range.
func (c *Conn) Stretch(ctx context.Context, want ReplayRange) (Stretch, error) {
	names, err := c.eventStreams(ctx)
	if err != nil {
		return Stretch{}, err
	}
	if len(names) > 1 {
		return Stretch{}, fmt.Errorf("%w: %d, %s to %s", ErrSharded, len(names), names[0], names[len(names)-1])
	}
	s, err := c.js.Stream(ctx, StreamName)
	if err != nil {
		return Stretch{}, fmt.Errorf("stream %s: %w", StreamName, err)
	}
	info := s.CachedInfo()
	st := Stretch{Created: info.Created, First: max(info.State.FirstSeq, 1), Last: info.State.LastSeq}
	if want.First > 0 {
		if want.First < st.First {
			st.Discarded = min(st.First, st.Last+1) - want.First
		}
		st.First = max(st.First, want.First)
	}
	if want.Last > 0 {
		st.Last = min(st.Last, want.Last)
	}
	if !want.Since.IsZero() {
		first, err := storedSince(ctx, s, want.Since)
		if err != nil {
			return Stretch{}, err
		}
		st.First = max(st.First, first)
	}
	if !want.Until.IsZero() {
		behind, err := storedSince(ctx, s, want.Until)
		if err != nil {
			return Stretch{}, err
		}
		st.Last = min(st.Last, max(behind, 1)-1)
	}
	return st, nil
}

// storedSince returns the sequence of the first frame stored at a time or
// later; where there is none yet, that of the next one. The server knows: it
// is where a consumer begins that asks for that time.
func storedSince(ctx context.Context, s jetstream.Stream, t time.Time) (uint64, error) {
	cons, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartTimePolicy,
		OptStartTime:      &t,
		InactiveThreshold: requestTimeout, // it goes away by itself where deleting fails
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", StreamName, err)
	}
	info := cons.CachedInfo()
	_ = s.DeleteConsumer(ctx, info.Name)
	return info.Delivered.Stream + 1, nil
}

// ReplayOptions say in what portions a stretch is written. Zero values are the
// defaults.
type ReplayOptions struct {
	BatchEvents int // a batch is written at about this many events (5,000)
	BatchBytes  int // or bytes (16 MiB)

	// Written is told of each batch that the sink has taken; its error ends Run.
	Written func(ctx context.Context, p Portion) error
}

// Portion is what one Write of a [Replay] brought.
type Portion struct {
	First, Last uint64    // sequences of the frames; every frame up to Last is done with
	Stored      time.Time // when the last of them was stored
	Frames      int       // frames read
	Events      int       // in them
	Unread      int       // messages that are no frames, left out
	Discarded   uint64    // frames of the stretch that the stream discarded before they could be read
}

// Replay is a source that reads a stretch of the stream once more, to its end.
// Nothing is acknowledged and no worker notices.
type Replay struct {
	conn    *Conn
	stretch Stretch
	opts    ReplayOptions
	log     *slog.Logger
}

// NewReplay returns a replay; [Replay.Run] reads.
func NewReplay(conn *Conn, s Stretch, o ReplayOptions, log *slog.Logger) *Replay {
	o.BatchEvents = cmp.Or(o.BatchEvents, 5000)
	o.BatchBytes = cmp.Or(o.BatchBytes, 16<<20)
	if o.Written == nil {
		o.Written = func(context.Context, Portion) error { return nil }
	}
	return &Replay{conn, s, o, log}
}

// Run writes the stretch to sink in the order of the stream, each frame once,
// and returns nil at its end or when ctx ends. An error of the sink ends it;
// that NATS goes away does not.
func (r *Replay) Run(ctx context.Context, sink trace.Sink) error {
	run := replayRun{Replay: r, sink: sink, next: max(r.stretch.First, 1)}
	for pause := minBackoff; ctx.Err() == nil && run.next <= r.stretch.Last; pause = min(2*pause, maxBackoff) {
		if r.conn.await(ctx) != nil {
			break
		}
		before := run.next
		err := run.frames(ctx)
		if run.next != before {
			pause = minBackoff
		}
		if run.failed != nil {
			return run.failed
		}
		if err != nil && ctx.Err() == nil {
			r.log.Warn("reading the stream, trying again", "stream", StreamName, "err", err)
			sleep(ctx, pause)
		}
	}
	return nil
}

// replayRun is one Run: where it is.
type replayRun struct {
	*Replay
	sink   trace.Sink
	next   uint64 // the first frame that is not written
	read   uint64 // the first frame that is not read
	failed error  // of the sink, or of Written

	batch   batch
	portion Portion
}

// silence is how long a frame that should be there may take to come.
const silence = 10 * time.Second

// errSilent means that a frame did not come that should be there.
var errSilent = errors.New("no frame comes")

// frames writes frames until the stretch is at its end. An error that is not
// kept in failed may be gone at the next attempt.
func (r *replayRun) frames(ctx context.Context) error {
	cons, err := r.conn.js.OrderedConsumer(ctx, StreamName, jetstream.OrderedConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       r.next,
		InactiveThreshold: tailInactive,
	})
	if err != nil {
		return err
	}
	msgs, err := cons.Messages(jetstream.PullMaxBytes(tailAhead))
	if err != nil {
		return err
	}
	defer msgs.Stop()
	r.begin()
	for r.read <= r.stretch.Last {
		err := r.frame(ctx, msgs)
		if ctx.Err() != nil {
			return ctx.Err() // what is not written yet is read again by whoever goes on
		}
		if err != nil {
			return errors.Join(err, r.write(ctx))
		}
		if len(r.batch.events) >= r.opts.BatchEvents || r.batch.bytes >= r.opts.BatchBytes {
			if err := r.write(ctx); err != nil {
				return err
			}
		}
	}
	return r.write(ctx)
}

// begin begins a batch.
func (r *replayRun) begin() {
	r.batch.reset()
	r.read = r.next
	r.portion = Portion{First: r.next}
}

// frame reads one frame into the batch.
func (r *replayRun) frame(ctx context.Context, msgs jetstream.MessagesContext) error {
	wait, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	msg, err := msgs.Next(jetstream.NextContext(wait))
	if wait.Err() != nil && ctx.Err() == nil {
		return r.silent(ctx)
	}
	if err != nil {
		return err
	}
	md, err := msg.Metadata()
	if err != nil {
		return err
	}
	seq := md.Sequence.Stream
	if behind := min(seq, r.stretch.Last+1); behind > r.read {
		r.skip(behind)
	}
	if seq > r.stretch.Last {
		return nil
	}
	r.batch.add(msg)
	r.portion.Frames = len(r.batch.frames)
	if n := len(r.batch.unreads); n > r.portion.Unread {
		r.portion.Unread = n
		r.log.Warn("message is no frame, left out", "seq", seq, "subject", msg.Subject(), "err", r.batch.unreads[n-1].err)
	}
	r.portion.Stored = md.Timestamp
	r.read = seq + 1
	return nil
}

// silent finds out why no frame comes: the rest of the stretch may have been
// discarded meanwhile.
func (r *replayRun) silent(ctx context.Context) error {
	s, err := r.conn.js.Stream(ctx, StreamName)
	if err != nil {
		return err
	}
	if first := s.CachedInfo().State.FirstSeq; first > r.stretch.Last {
		r.skip(r.stretch.Last + 1)
		return nil
	}
	return errSilent
}

// skip goes on at a frame; those before it are not in the stream any more.
func (r *replayRun) skip(to uint64) {
	r.portion.Discarded += to - r.read
	r.read = to
}

// write writes the batch and begins the next.
func (r *replayRun) write(ctx context.Context) error {
	if r.read == r.next {
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
	r.portion.Last = r.read - 1
	r.portion.Events = len(r.batch.events)
	r.next = r.read
	if err := r.opts.Written(ctx, r.portion); err != nil {
		r.failed = err
		return err
	}
	r.begin()
	return nil
}
