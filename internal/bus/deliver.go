package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	minRetry = 200 * time.Millisecond
	maxRetry = 10 * time.Second

	// Why a reject is one, where the sink does not say it.
	rejectRefused     = "refused"
	rejectUndecodable = "undecodable frame"
)

// deliver brings the batch into the sink, as often as that takes, and settles
// its frames. Meanwhile the stream knows that somebody holds them. When ctx
// ends, the running Write goes on for the drain timeout; frames that are not
// settled then go back to the stream for the next worker.
func (w *worker) deliver(ctx context.Context) {
	hold := w.hold()
	defer hold.release()
	drain, cancel := outlive(ctx, w.c.opts.DrainTimeout)
	defer cancel()

	if len(w.batch.frames) > 0 {
		if !w.write(ctx, drain) {
			hold.release()
			w.giveBack()
			return
		}
		hold.settled(w.batch.frames)
		w.settle(drain, w.batch.frames, jetstream.Msg.Ack)
		w.c.metrics.settled(len(w.batch.frames), len(w.batch.events))
	}
	for _, u := range w.batch.unreads {
		w.rejectUnread(ctx, drain, u)
	}
}

// write returns true when no event of the batch needs this worker any more:
// the sink has it, or the rejects.
func (w *worker) write(ctx, drain context.Context) bool {
	if len(w.batch.events) == 0 {
		return true
	}
	for pause := minRetry; ; pause = min(2*pause, maxRetry) {
		err := w.sink.Write(drain, w.batch.events)
		if err == nil {
			return true
		}
		if errors.Is(err, trace.ErrPermanent) {
			return w.rejectAll(ctx, drain, rejections(err, len(w.batch.events)))
		}
		w.c.metrics.retries.Inc()
		w.c.complain("events not written, trying again", err)
		sleep(ctx, pause/2+rand.N(pause/2))
		if ctx.Err() != nil {
			return false
		}
	}
}

// rejections lists what a permanent error refuses: what it names, or all.
func rejections(err error, n int) trace.Rejected {
	var rejected trace.Rejected
	if errors.As(err, &rejected) {
		return rejected
	}
	for i := range n {
		rejected = append(rejected, trace.Rejection{Index: i, Reason: rejectRefused, Err: err})
	}
	return rejected
}

func (w *worker) rejectAll(ctx, drain context.Context, rejected trace.Rejected) bool {
	for _, r := range rejected {
		if r.Index < 0 || r.Index >= len(w.batch.events) {
			w.c.log.Error("sink rejected an event it was not given", "index", r.Index, "events", len(w.batch.events), "err", r.Err)
			continue
		}
		reject := Reject{Worker: w.c.opts.Durable, Reason: r.Reason, Event: &w.batch.events[r.Index]}
		if r.Err != nil {
			reject.Detail = r.Err.Error()
		}
		if !w.reject(ctx, drain, reject) {
			return false
		}
	}
	return true
}

// reject puts r into the rejects, as often as that takes. It returns false
// when there is no time left for that.
func (w *worker) reject(ctx, drain context.Context, r Reject) bool {
	for pause := minRetry; ; pause = min(2*pause, maxRetry) {
		err := w.c.rejects.Put(drain, r)
		if err == nil {
			w.c.metrics.rejected.WithLabelValues(r.Reason).Inc()
			w.c.complain("event rejected", errors.New(r.Reason+": "+r.Detail))
			return true
		}
		if errors.Is(err, trace.ErrPermanent) { // it came as a frame and cannot go as one
			w.c.metrics.rejected.WithLabelValues(r.Reason).Inc()
			w.c.log.Error("rejected event cannot be kept", "id", r.Event.ID, "reason", r.Reason, "err", err)
			return true
		}
		w.c.complain("event not written to the rejects, trying again", err)
		sleep(ctx, pause/2+rand.N(pause/2))
		if ctx.Err() != nil {
			return false
		}
	}
}

// rejectUnread keeps what is no frame and tells the stream not to send it again.
func (w *worker) rejectUnread(ctx, drain context.Context, u unread) {
	r := Reject{
		Worker: w.c.opts.Durable,
		Reason: rejectUndecodable,
		Detail: u.err.Error(),
		Raw:    u.msg.Data(),
		Header: u.msg.Headers(),
	}
	if !w.reject(ctx, drain, r) {
		_ = u.msg.Nak()
		return
	}
	w.settle(drain, []jetstream.Msg{u.msg}, func(m jetstream.Msg) error { return m.TermWithReason(rejectUndecodable) })
}

// settle tells the stream what became of msgs. When the connection is away it
// waits for it, for that costs less than a redelivery. A word that is lost on
// the way means a redelivery, and that is allowed.
func (w *worker) settle(ctx context.Context, msgs []jetstream.Msg, tell func(jetstream.Msg) error) {
	for _, m := range msgs {
		for tell(m) != nil && !w.c.conn.connected() {
			if w.c.conn.await(ctx) != nil {
				return
			}
		}
	}
}

// giveBack lets another worker have the frames at once.
func (w *worker) giveBack() {
	for _, m := range w.batch.frames {
		_ = m.Nak() // a lost word means that AckWait decides
		w.c.givenBack(m)
	}
	for _, u := range w.batch.unreads {
		_ = u.msg.Nak()
		w.c.givenBack(u.msg)
	}
}

// hold is the sign of life for frames that take long: each third of their
// AckWait the stream is told that they are still worked on.
type hold struct {
	stop func()
	done chan struct{}

	mu   sync.Mutex
	msgs []jetstream.Msg
}

func (w *worker) hold() *hold {
	ctx, stop := context.WithCancel(context.Background())
	h := &hold{stop: stop, done: make(chan struct{}), msgs: w.batch.all()}
	if time.Since(w.batch.since) > w.ackWait/4 {
		h.tell() // collecting took long
	}
	go func() {
		defer close(h.done)
		tick := time.NewTicker(w.ackWait / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				h.tell()
			}
		}
	}()
	return h
}

func (h *hold) tell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.msgs {
		_ = m.InProgress() // without a connection there is nobody to tell
	}
}

// settled ends the signs for msgs, the first of those held.
func (h *hold) settled(msgs []jetstream.Msg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.msgs = h.msgs[len(msgs):]
}

// release ends the signs.
func (h *hold) release() {
	h.stop()
	<-h.done
}

// outlive returns a context that ends d after ctx does.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		sleep(longer, d)
		cancel()
	})
	return longer, func() {
		stop()
		cancel()
	}
}
