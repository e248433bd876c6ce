package sipgotap

import (
	"context"
	"errors"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	batchEvents = 256
	batchBytes  = 256 << 10

	// pauses is how often Run looks for events while one waits for its marks:
	// the sink gets more than one at a time, and the program few timers.
	pauses = 8

	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// ErrRunning is returned by a Run while another one is under way.
var ErrRunning = errors.New("the tap runs already")

// Run brings what is traced to sink until ctx is done, and goes on a little
// after that: see Options.Flush. What a sink does not take is offered again;
// meanwhile the buffer fills, and then messages are dropped. The program never
// waits for the sink. What Run leaves in the buffer a later Run finds there.
func (t *Tap) Run(ctx context.Context, sink trace.Sink) error {
	if !t.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer t.running.Store(false)
	for ctx.Err() == nil {
		events, wait := t.take(false)
		if len(events) == 0 {
			t.sleep(ctx, wait)
			continue
		}
		t.deliver(ctx, sink, events)
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.opts.Flush)
	defer cancel()
	for flush.Err() == nil {
		events, _ := t.take(true)
		if len(events) == 0 {
			return nil
		}
		t.deliver(flush, sink, events)
	}
	return nil
}

// sleep waits for something to do.
func (t *Tap) sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(max(wait, t.opts.Settle/pauses))
	defer timer.Stop()
	due := timer.C
	if wait == 0 {
		due = nil // the buffer is empty
	}
	select {
	case <-due:
	case <-t.wake:
	case <-ctx.Done():
	}
}

// take makes events of the messages that have settled, or of all, from the
// first on. The events hold until release. Without any it returns how long the
// first one has to wait, or 0 if there is none.
func (t *Tap) take(all bool) (events []trace.Event, wait time.Duration) {
	t.mu.Lock()
	events, wait = t.takeLocked(all)
	t.mu.Unlock()
	for i := range events {
		e := &events[i]
		e.Agent = t.opts.Agent
		t.routes.complete(e)
		e.Identify()
	}
	return events, wait
}

func (t *Tap) takeLocked(all bool) (events []trace.Event, wait time.Duration) {
	q := &t.queue
	events, size, now := t.batch[:0], 0, t.now()
	q.taken, t.passed = q.first, 0
	for q.taken < q.next && len(events) < cap(t.batch) && size < batchBytes {
		r := q.at(q.taken)
		if wait = t.opts.Settle - (now - r.queued); wait > 0 && !all && !q.half() {
			break
		}
		wait = 0
		q.taken++
		if t.opts.Selective && !r.marked() {
			t.passed++
			continue
		}
		events = append(events, trace.Event{})
		q.event(r, &events[len(events)-1])
		size += r.size
	}
	if len(events) == 0 {
		t.release()
	}
	return events, wait
}

// release forgets what take has taken. The caller holds the lock.
func (t *Tap) release() {
	t.count.Unmarked += t.passed
	t.passed = 0
	t.queue.release()
}

// deliver writes events and forgets them, however long that takes. If ctx ends
// first they stay in the buffer.
func (t *Tap) deliver(ctx context.Context, sink trace.Sink, events []trace.Event) {
	defer clear(events)
	written, refused, err := t.write(ctx, sink, events)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.queue.taken = t.queue.first
		return
	}
	t.count.Written += written
	t.count.Refused += refused
	t.release()
}

// write writes events until the sink has them or has refused them for good. It
// fails only when ctx is done.
func (t *Tap) write(ctx context.Context, sink trace.Sink, events []trace.Event) (written, refused uint64, err error) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := sink.Write(ctx, events)
		var some trace.Rejected
		switch {
		case err == nil:
			return uint64(len(events)), 0, nil
		case errors.As(err, &some):
			t.complain("events refused", len(some), err)
			return uint64(len(events) - len(some)), uint64(len(some)), nil
		case errors.Is(err, trace.ErrPermanent) && len(events) == 1:
			t.complain("events refused", 1, err)
			return 0, 1, nil
		case errors.Is(err, trace.ErrPermanent):
			return t.writeEach(ctx, sink, events)
		}
		if ctx.Err() == nil {
			t.complain("sink takes nothing, buffering", len(events), err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}

// writeEach writes events one by one, so that a bad one takes no good ones with it.
func (t *Tap) writeEach(ctx context.Context, sink trace.Sink, events []trace.Event) (written, refused uint64, err error) {
	for i := range events {
		w, r, err := t.write(ctx, sink, events[i:i+1])
		if err != nil {
			return 0, 0, err // the good ones will be written again, and that is allowed
		}
		written, refused = written+w, refused+r
	}
	return written, refused, nil
}

// complain says what is wrong with the sink, at most once in a second.
func (t *Tap) complain(what string, events int, err error) {
	t.unsaid += events
	if now := time.Now(); now.After(t.silent) {
		s := t.Stats()
		t.log.Warn(what, "count", t.unsaid, "waiting", s.Waiting, "dropped", s.Dropped, "err", err)
		t.unsaid, t.silent = 0, now.Add(time.Second)
	}
}
