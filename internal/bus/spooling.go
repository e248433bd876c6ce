package bus

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// A Spool keeps frames on disk while the stream takes none. A publisher that
// has one calls it from a single goroutine, which may wait for the disk as
// long as it takes, and closes it in the end.
type Spool interface {
	// Append keeps records, each with its number of events. The first so many
	// returned survive the end of this process; of the rest the error says why
	// they are not kept. It does not keep the slices.
	Append(records [][]byte, events []int) (int, error)
	// Next hands out records in the order of Append, each once, until yield
	// returns false. A record is valid until yield returns.
	Next(yield func(seq uint64, record []byte, events int) bool) error
	// Done says that records are in the stream: no later process is to hand
	// them out again.
	Done(seqs []uint64) error
	// Close lets another process have what is not done.
	Close() error
}

const (
	stallTime    = time.Second // without an acknowledgement NATS counts as away
	spoolBatch   = 8 << 20     // bytes written at once
	spoolRetry   = time.Second // after the disk refused, doubled up to
	spoolRetries = 30 * time.Second
	drainShare   = 8 // the part of the buffer for frames from disk is 1/8
)

// spooling is what a publisher knows of its spool. Everything but the spool
// itself is guarded by the lock of the publisher.
type spooling struct {
	spool Spool
	wake  chan struct{} // size 1: something is to be done before the next tick
	done  chan struct{} // closed when nobody calls the spool any more
	limit *rate.Limiter // events a second from disk

	last   bool      // the publisher ends: everything goes to disk
	since  time.Time // the stream takes nothing since; zero while it does
	moving []*frame  // being written
	drain  queue     // read from disk, to be sent again; by their place there
	size   int64     // of those and of those in flight
	flight int       // frames from disk that wait for their acknowledgement
	acked  []uint64  // in the stream, and the spool does not know yet

	failing error // why nothing is kept now
	pause   time.Duration
	retry   time.Time

	records [][]byte // memory of the goroutine
	events  []int
}

func newSpooling(o PublisherOptions) *spooling {
	burst := max(o.DrainRate/20, 2*o.FrameEvents)
	return &spooling{
		spool: o.Spool,
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
		limit: rate.NewLimiter(rate.Limit(o.DrainRate), burst),
	}
}

// keepSpool moves frames between memory and disk until ctx ends. It is alone
// with the spool, so that a disk that hangs stops nothing else.
func (p *Publisher) keepSpool(ctx context.Context) {
	s := p.spooling
	defer close(s.done)
	tick := time.NewTicker(p.opts.SpoolSync)
	defer tick.Stop()
	for {
		p.spill()
		p.settleDrained()
		p.refill()
		select {
		case <-tick.C:
		case <-s.wake:
		case <-ctx.Done():
			p.settleDrained()
			if err := s.spool.Close(); err != nil {
				p.log.Warn("spool not closed cleanly", "err", err)
			}
			return
		}
	}
}

// stuck reports that the stream takes nothing now. The lock is held.
func (p *Publisher) stuck(now time.Time) bool {
	return p.failure != nil || p.unsure || !p.conn.connected() || len(p.flight) > 0 && now.Sub(p.progress) > stallTime
}

// crowded reports that memory for live events gets scarce. The lock is held.
func (p *Publisher) crowded() bool { return p.held > p.opts.BufferBytes/2 }

// spill writes to disk what waits in memory while the stream takes nothing,
// and what would fill more than half of the memory when it is slow.
func (p *Publisher) spill() {
	for {
		frames := p.takeSpill(time.Now())
		if len(frames) == 0 {
			return
		}
		s := p.spooling
		s.records, s.events = s.records[:0], s.events[:0]
		for _, f := range frames {
			s.records = append(s.records, f.record())
			s.events = append(s.events, f.events)
		}
		n, err := s.spool.Append(s.records, s.events)
		clear(s.records)
		if !p.spilled(frames, n, err) {
			return
		}
	}
}

// takeSpill returns the oldest frames that are to be written now.
func (p *Publisher) takeSpill(now time.Time) []*frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.spooling
	stuck := p.stuck(now)
	switch {
	case !stuck:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	}
	all := s.last || stuck && (p.closed || now.Sub(s.since) >= p.opts.SpoolSync)
	if !all && !p.crowded() || now.Before(s.retry) && !s.last {
		return nil
	}
	surplus := min(spoolBatch, p.held-p.opts.BufferBytes/2)
	if all {
		surplus = spoolBatch
	}
	s.moving = p.ready.take(func(f *frame) bool {
		if f.write != nil || surplus <= 0 {
			return false // a Write waits for the stream, not for the disk
		}
		surplus -= f.held
		return true
	})
	slices.SortFunc(s.moving, func(a, b *frame) int { return cmp.Compare(a.order, b.order) })
	return s.moving
}

// spilled forgets the first n frames, which are on disk, and takes the others
// back. It reports whether more may be written.
func (p *Publisher) spilled(frames []*frame, n int, err error) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.spooling
	if s.moving == nil {
		return false // given up: the disk took longer than the end of the program
	}
	s.moving = nil
	for _, f := range frames[:n] {
		p.forget(f)
	}
	p.ready.prepend(frames[n:])
	if err == nil {
		if s.failing != nil {
			p.log.Info("spool takes frames again")
		}
		s.failing, s.pause = nil, 0
		return true
	}
	s.failing = err
	s.pause = min(max(2*s.pause, spoolRetry), spoolRetries)
	s.retry = now.Add(s.pause)
	wake(p.sendWake)
	if n, ok := p.diskWarn.allow(now); ok {
		p.log.Warn("spool takes no frames, they stay in memory", "count", n, "buffered_bytes", p.held, "err", err)
	}
	return false
}

// settleDrained tells the spool what is in the stream.
func (p *Publisher) settleDrained() {
	p.mu.Lock()
	acked := p.spooling.acked
	p.spooling.acked = nil
	p.mu.Unlock()
	if len(acked) == 0 {
		return
	}
	if err := p.spooling.spool.Done(acked); err != nil {
		p.log.Warn("spool has not noted what is in the stream, the next start may send it again", "count", len(acked), "err", err)
	}
}

// refill reads frames from disk when few are left to be sent.
func (p *Publisher) refill() {
	budget := p.drainBudget()
	if budget <= 0 {
		return
	}
	s := p.spooling
	err := s.spool.Next(func(seq uint64, record []byte, events int) bool {
		f := p.unspool(seq, record, events)
		p.mu.Lock()
		defer p.mu.Unlock()
		if f == nil {
			s.acked = append(s.acked, seq) // nobody can do better with it
			p.metrics.drop(dropUnreadable, events)
			return true
		}
		p.held += f.held
		s.size += f.held
		s.drain.push(f)
		budget -= f.held
		return budget > 0
	})
	if err != nil {
		if n, ok := p.diskWarn.allow(time.Now()); ok {
			p.log.Warn("spool not read, trying again", "count", n, "err", err)
		}
	}
	wake(p.sendWake)
}

// drainBudget is how many bytes may be read from disk now.
func (p *Publisher) drainBudget() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.spooling
	share := p.opts.BufferBytes / drainShare
	if p.closed || !p.conn.connected() || p.crowded() || s.size > share/2 {
		return 0
	}
	return share - s.size
}

// nextDrained takes the next frame from disk that may be sent now, or says how
// long to wait. The lock is held.
func (p *Publisher) nextDrained(now time.Time) (f *frame, wait time.Duration) {
	s := p.spooling
	if s == nil || s.drain.len() == 0 || s.flight >= max(1, p.opts.Window/2) {
		return nil, 0 // half of the window is for live frames
	}
	r := s.limit.ReserveN(now, min(s.drain.first().events, s.limit.Burst()))
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return nil, wait
	}
	s.flight++
	return s.drain.pop(), 0
}

// landed does for a frame from disk what is due when it is not in flight any
// more. The lock is held.
func (s *spooling) landed(f *frame) { s.flight-- }

// A parted is a record of the spool that was divided: it is done when the last
// of its frames is in the stream, or in the spool again.
type parted struct {
	seq    uint64
	frames int // left, the divided one itself included
}

// settled says that one frame of a record is. The lock is held.
func (s *spooling) settled(r *parted) {
	if r.frames--; r.frames == 0 {
		s.acked = append(s.acked, r.seq)
	}
}

// release forgets a frame from disk. The spool keeps it unless it is done. The
// lock is held.
func (p *Publisher) release(f *frame, done bool) {
	s := p.spooling
	s.size -= f.held
	if done {
		s.acked = append(s.acked, f.spooled)
	}
	if s.size <= p.opts.BufferBytes/drainShare/2 {
		wake(s.wake)
	}
	p.forget(f)
}

// again puts a frame from disk back in its place. The lock is held.
func (p *Publisher) again(f *frame) {
	if p.closed {
		p.release(f, false)
		return
	}
	p.spooling.drain.insert(f)
}

// lastSpill brings what is not in the stream to disk: nothing is sent any more.
func (p *Publisher) lastSpill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for msg, f := range p.flight {
		delete(p.flight, msg)
		if f.spooled != 0 {
			p.release(f, false)
		} else {
			p.ready.push(f)
		}
	}
	for _, q := range []*queue{&p.sealed, &p.ready} {
		for _, f := range q.take(func(f *frame) bool { return f.write != nil }) {
			f.write.err = ErrPublisherClosed
			p.forget(f)
		}
	}
	p.spooling.last = true
	wake(p.spooling.wake)
}

// releaseDrained forgets what was read from disk and is not sent. The lock is held.
func (p *Publisher) releaseDrained() {
	for f := p.spooling.drain.pop(); f != nil; f = p.spooling.drain.pop() {
		p.release(f, false)
	}
	wake(p.spooling.wake)
}

// endSpooling waits for the spool to be closed.
func (p *Publisher) endSpooling() {
	late := time.NewTimer(p.opts.FlushTimeout)
	defer late.Stop()
	select {
	case <-p.spooling.done:
	case <-late.C:
		p.log.Error("the spool's disk does not answer, ending without it")
	}
}

// A record of the spool is a frame as it is published: a version, flags, the
// shard and how many there were, the frame's id, and the body.
const (
	recordVersion    = 1
	recordHead       = 1 + 1 + 2 + 2 + len(frameDigest{})
	recordCompressed = 1
)

var errRecord = errors.New("not a record of ours")

// record is f as the spool keeps it. The memory before the body is made for it.
func (f *frame) record() []byte {
	head := f.body.b[:recordHead]
	head[0], head[1] = recordVersion, 0
	if f.compressed {
		head[1] = recordCompressed
	}
	binary.BigEndian.PutUint16(head[2:], uint16(f.shard))
	binary.BigEndian.PutUint16(head[4:], uint16(f.shards))
	copy(head[6:], f.id[:])
	return f.body.b
}

// unspool makes a frame of a record, or nil if it is none of ours.
func (p *Publisher) unspool(seq uint64, record []byte, events int) *frame {
	if len(record) < recordHead || record[0] != recordVersion {
		if n, ok := p.diskWarn.allow(time.Now()); ok {
			p.log.Error("record of the spool not understood, dropped", "count", n, "err", errRecord)
		}
		return nil
	}
	f := p.emptyFrame()
	f.body = p.memory.get(len(record))
	f.body.b = append(f.body.b, record...)
	f.compressed = record[1]&recordCompressed != 0
	f.shard, f.shards = int(binary.BigEndian.Uint16(record[2:])), int(binary.BigEndian.Uint16(record[4:]))
	f.id = frameDigest(record[6:recordHead])
	f.events, f.spooled = events, seq
	f.held = int64(cap(f.body.b))
	f.compose()
	return f
}
