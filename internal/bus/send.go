package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	ackTimeout = 5 * time.Second // a lost acknowledgement must not hold its slot for ever
	minBackoff = 20 * time.Millisecond
	maxBackoff = 2 * time.Second

	minFrameBytes = 1 << 10 // below this a smaller frame does not help
)

// Run brings what was accepted into the stream. When ctx ends, nothing more is
// accepted; Run returns nil when everything is acknowledged, or after the
// flush timeout an error that says how much is not.
func (p *Publisher) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { p.packFrames(work) })
	wg.Go(func() { p.sendFrames(work) })
	if p.spooling != nil {
		go p.keepSpool(work) // endSpooling waits for it, but not for ever
	}

	<-ctx.Done()
	p.close()
	p.awaitEmpty(p.opts.FlushTimeout)
	if p.spooling != nil {
		p.lastSpill()
		p.awaitEmpty(p.opts.FlushTimeout)
	}
	stop()
	wg.Wait()
	if p.spooling != nil {
		p.endSpooling()
	}
	if n := p.abandon(); n > 0 {
		return fmt.Errorf("publisher: %d events not acknowledged within %v were given up", n, p.opts.FlushTimeout)
	}
	return nil
}

// Check says in plain words why nothing gets into the stream now. It is nil
// while all is well.
func (p *Publisher) Check(ctx context.Context) error {
	if err := p.conn.Check(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return fmt.Errorf("frames are not stored in stream %s: %w", StreamName, plain(p.failure))
	}
	return nil
}

// close seals what is open and refuses the rest.
func (p *Publisher) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.sealAll()
	if p.spooling != nil {
		p.releaseDrained()
	}
	p.announceRoom()
}

// awaitEmpty returns when every frame is settled, or after the timeout.
func (p *Publisher) awaitEmpty(timeout time.Duration) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for late := false; p.held > 0 && !late; {
		freed := p.freed
		p.waiters++
		p.mu.Unlock()
		select {
		case <-freed:
		case <-deadline.C:
			late = true
		}
		p.mu.Lock()
		p.waiters--
	}
}

// abandon gives up what is left and returns how many offered events that are.
// The Writes that wait learn it as an error.
func (p *Publisher) abandon() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flight {
		p.ready.push(f)
	}
	clear(p.flight)
	if p.spooling != nil { // the disk did not take these in time
		for _, f := range p.spooling.moving {
			p.ready.push(f)
		}
		p.spooling.moving = nil
	}
	lost := 0
	for _, q := range []*queue{&p.sealed, &p.ready} {
		for f := q.pop(); f != nil; f = q.pop() {
			if f.write != nil {
				f.write.err = ErrPublisherClosed
			} else if f.part == nil && f.spooled == 0 {
				lost += f.events
			}
			f.part = nil // the spool has it still
			p.forget(f)
		}
	}
	p.metrics.drop(dropShutdown, lost)
	p.ended = true
	return lost
}

// packFrames turns sealed frames into messages.
func (p *Publisher) packFrames(ctx context.Context) {
	var scratch []byte
	for {
		p.mu.Lock()
		f := p.sealed.pop()
		p.mu.Unlock()
		if f != nil {
			scratch = p.pack(f, scratch)
			continue
		}
		select {
		case <-p.packWake:
		case <-p.linger.C:
			p.mu.Lock()
			p.sealAll()
			p.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// pack makes the message of f, compressed where that saves something, and
// queues it. A frame that comes back is divided.
func (p *Publisher) pack(f *frame, scratch []byte) []byte {
	if f.msg != nil {
		p.divide(f)
		return scratch
	}
	packed, compressed := f.raw.b, false
	id := digest(packed)
	if p.opts.Compression == CompressS2 {
		if n := s2.MaxEncodedLen(len(packed)); n > cap(scratch) {
			scratch = make([]byte, n)
		}
		if z := s2.Encode(scratch[:cap(scratch)], packed); len(z) < len(packed) {
			packed, compressed = z, true
		}
	}
	body := p.memory.get(recordHead + len(packed))
	body.b = append(body.b[:recordHead], packed...)

	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory.put(f.raw)
	f.raw, f.body, f.id, f.compressed = nil, body, id, compressed
	f.compose()
	p.held += int64(cap(body.b)) - f.held
	f.held = int64(cap(body.b))
	p.ready.push(f)
	p.announceRoom()
	wake(p.sendWake)
	if p.spooling != nil && (p.crowded() || p.closed) {
		wake(p.spooling.wake)
	}
	return scratch
}

// sendFrames publishes what is ready while NATS is there and the window has room.
func (p *Publisher) sendFrames(ctx context.Context) {
	hold := time.NewTimer(0)
	defer hold.Stop()
	for {
		changed := p.conn.changed()
		f, wait := p.next(time.Now())
		if f != nil {
			p.publish(f.msg)
			continue
		}
		if wait > 0 {
			hold.Reset(wait)
		}
		select {
		case <-p.sendWake:
		case <-hold.C:
		case <-changed:
			p.mu.Lock()
			p.holdUntil, p.backoff = time.Time{}, 0 // what failed may have failed with the old connection
			p.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// next takes the next frame that may be sent now. Without one, wait says after
// what time to ask again, if time alone helps.
func (p *Publisher) next(now time.Time) (f *frame, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.unsure || len(p.flight) >= p.opts.Window || !p.conn.connected() {
		return nil, 0
	}
	if wait = p.holdUntil.Sub(now); wait > 0 {
		return nil, wait
	}
	for {
		if f = p.ready.pop(); f == nil { // live frames first
			if f, wait = p.nextDrained(now); f == nil {
				return nil, wait
			}
		}
		if f.shards == len(p.subjects) {
			break
		}
		if f.spooled != 0 {
			p.spooling.landed(f)
		}
		p.enqueue(f) // to be divided among the shards there are
	}
	f.msg.Subject = p.subjects[f.shard]
	if len(p.flight) == 0 {
		p.progress = now
	}
	p.flight[f.msg] = f
	return f, 0
}

// publish sends msg. The library's own retries are off: they would read the
// message when it may already be settled.
func (p *Publisher) publish(msg *nats.Msg) {
	if _, err := p.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0)); err != nil {
		p.failed(p.js, msg, err)
	}
}

// acked is called by the client when msg is in the stream; a duplicate is too.
func (p *Publisher) acked(_ jetstream.JetStream, msg *nats.Msg, _ *jetstream.PubAck) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.flight[msg]
	if !ok {
		return // given up
	}
	delete(p.flight, msg)
	p.metrics.published(f.events, len(msg.Data))
	p.backoff, p.holdUntil, p.failure, p.progress = 0, time.Time{}, nil, time.Now()
	if f.spooled != 0 {
		p.spooling.landed(f)
		p.release(f, true)
	} else {
		p.forget(f)
	}
	wake(p.sendWake)
}

// failed is called when msg may not be in the stream. It goes back into the
// queue, after a pause that grows while everything fails.
func (p *Publisher) failed(_ jetstream.JetStream, msg *nats.Msg, err error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.flight[msg]
	if !ok {
		return // settled before
	}
	delete(p.flight, msg)
	if f.spooled != 0 {
		p.spooling.landed(f)
	}
	if tooLarge(err) {
		f.err = err
		p.enqueue(f)
		return
	}
	p.metrics.retries.Inc()
	if f.spooled != 0 {
		p.again(f)
	} else {
		p.ready.push(f)
	}
	p.failure = err
	if now.After(p.holdUntil) {
		p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
		p.holdUntil = now.Add(p.backoff)
	}
	wake(p.sendWake)
	if n, ok := p.warn.allow(now); ok {
		p.log.Warn("frame not stored, publishing it again", "count", n, "buffered_bytes", p.held, "err", err)
	}
}

// tooLarge reports that no retry will make the server take the message whole.
func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) ||
		errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum
}

// refuse gives up the single event of f. The lock is held.
func (p *Publisher) refuse(f *frame) {
	if f.write != nil {
		f.write.refused = append(f.write.refused, refusal{trace.ID(f.ids), f.err})
		return
	}
	p.metrics.drop(dropTooLarge, 1)
	if n, ok := p.warn.allow(time.Now()); ok {
		p.log.Warn("event too large for the server, dropped", "count", n, "bytes", len(f.body.b), "err", f.err)
	}
}
