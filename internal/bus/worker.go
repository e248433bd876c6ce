package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	idleWait  = 500 * time.Millisecond // a pull request that waits for the first frame; the end of Run waits for it
	fetchEdge = 5 * time.Millisecond   // less than this before the end of the linger is not worth a request
	fetchUnit = 64 << 10               // bytes of a full frame; only one that is a single large event is larger
	fetchRest = 250 * time.Millisecond // after a request that went wrong
)

// worker reads one batch after the other and brings it into the sink.
type worker struct {
	c       *reader
	jc      jetstream.Consumer
	sink    trace.Sink
	ackWait time.Duration
	linger  time.Duration
	limit   int // frames this worker may hold

	batch batch
	busy  bool // the last batch was full

	eventsPerFrame, bytesPerFrame float64 // lately
}

func newWorker(c *reader, jc jetstream.Consumer, sink trace.Sink) *worker {
	cfg := jc.CachedInfo().Config
	return &worker{
		c: c, jc: jc, sink: sink,
		ackWait:        cfg.AckWait,
		linger:         min(c.opts.Linger, cfg.AckWait/3),
		limit:          max(1, min(cfg.MaxAckPending, c.opts.MaxAckPending)/c.opts.Workers),
		eventsPerFrame: 1,
		bytesPerFrame:  1 << 10,
	}
}

// run works until life ends or the durable is gone. What it has collected it
// delivers; only the end of ctx keeps it from that.
func (w *worker) run(ctx, life context.Context) {
	for w.c.conn.await(life) == nil {
		err := w.collect(life)
		if !w.batch.empty() {
			w.learn()
			w.deliver(ctx)
		}
		w.batch.reset()
		switch {
		case err == nil || life.Err() != nil:
		case errors.Is(err, errGone):
			w.c.log.Info("looking for the durable consumer again", "err", err)
			return
		default:
			w.c.complain("reading the stream", err)
			sleep(life, fetchRest)
		}
	}
}

// collect fills the batch. It waits for the first frame and then, at most for
// the linger, for more. Every request is read to its end: a frame that comes
// to a request nobody reads would be missing until its AckWait is over.
func (w *worker) collect(ctx context.Context) error {
	n, wait := 1, idleWait
	if w.busy {
		n, wait = w.want(), w.linger
	}
	err := w.fetch(n, wait)
	for err == nil && !w.batch.empty() && !w.full() && ctx.Err() == nil {
		left := w.linger - time.Since(w.batch.since)
		if left < fetchEdge {
			break
		}
		err = w.fetch(w.want(), left)
	}
	w.busy = w.full()
	return err
}

// fetch asks for n frames, or as many as surely have room in the batch, and
// adds what comes within wait. The request itself has no limit in bytes: a
// replicated consumer answers such a one with its end before the frames, which
// then come to nobody, and again, and for ever.
func (w *worker) fetch(n int, wait time.Duration) error {
	n = max(1, min(n, (w.c.opts.BatchBytes-w.batch.bytes)/fetchUnit))
	msgs, err := w.jc.Fetch(n, jetstream.FetchMaxWait(wait))
	if err != nil {
		return err
	}
	for msg := range msgs.Messages() {
		if md, err := msg.Metadata(); err == nil && md.NumDelivered > 1 {
			w.c.cameAgain()
		}
		w.batch.add(msg)
	}
	switch err := msgs.Error(); {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: %w", errGone, err)
	default:
		return err
	}
}

// full reports whether the batch is to be written now.
func (w *worker) full() bool {
	return len(w.batch.events) >= w.c.opts.BatchEvents ||
		w.batch.bytes >= w.c.opts.BatchBytes ||
		len(w.batch.frames)+len(w.batch.unreads) >= w.limit
}

// want is how many more frames will likely fill the batch, if they are like
// those in it, or else like those lately.
func (w *worker) want() int {
	eventsPerFrame, bytesPerFrame := w.eventsPerFrame, w.bytesPerFrame
	if len(w.batch.frames) > 0 {
		eventsPerFrame, bytesPerFrame = w.batch.averages()
	}
	byEvents := float64(w.c.opts.BatchEvents-len(w.batch.events)) / eventsPerFrame
	byBytes := float64(w.c.opts.BatchBytes-w.batch.bytes) / bytesPerFrame
	left := w.limit - len(w.batch.frames) - len(w.batch.unreads)
	return max(1, min(int(math.Ceil(min(byEvents, byBytes))), left))
}

// learn remembers how full frames are lately.
func (w *worker) learn() {
	if len(w.batch.frames) == 0 {
		return
	}
	const weight = 0.5
	events, bytes := w.batch.averages()
	w.eventsPerFrame += weight * (events - w.eventsPerFrame)
	w.bytesPerFrame += weight * (bytes - w.bytesPerFrame)
}
