package bus

import (
	"cmp"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A frame on its way into the stream. It is filled, sealed, packed, sent until
// it is acknowledged, and then its memory is used again.
type frame struct {
	raw        *buffer   // HEP3 packets, until it is packed
	body       *buffer   // room for the head of a record, then what is published
	msg        *nats.Msg // around that
	ids        []byte    // of its events, 16 bytes each
	events     int
	id         frameDigest // of what is in raw
	compressed bool
	shard      int // of so many shards
	shards     int
	order      uint64    // of its seal
	spooled    uint64    // its place in the spool; 0 is none
	part       *parted   // the record of the spool that it is a part of; nil is none
	held       int64     // its part of Publisher.held
	write      *delivery // the Write that waits for it; nil for Offer
	err        error     // why the server will never take it
}

func (f *frame) add(packet []byte, id trace.ID) {
	f.raw.b = append(f.raw.b, packet...)
	f.ids = append(f.ids, id[:]...)
	f.events++
}

// emptyFrame returns a frame without memory for events.
func (p *Publisher) emptyFrame() *frame {
	if f, ok := p.pool.Get().(*frame); ok {
		return f
	}
	return &frame{ids: make([]byte, 0, p.opts.FrameEvents*len(trace.ID{}))}
}

// newFrame returns an empty frame, accounted for. The lock is held; there is
// [Publisher.room].
func (p *Publisher) newFrame(shard int, d *delivery) *frame {
	f := p.emptyFrame()
	f.raw = p.memory.get(p.opts.frameRoom())
	f.held = int64(cap(f.raw.b))
	f.shard, f.shards, f.write = shard, len(p.subjects), d
	if d != nil {
		d.pending++
	}
	p.held += f.held
	return f
}

// room reports whether one more frame stays within limit bytes. The lock is held.
func (p *Publisher) room(limit int64) bool {
	return p.held+int64(p.opts.frameRoom()) <= limit
}

// fits reports whether packet may join f: alone it always may.
func (p *Publisher) fits(f *frame, packet []byte) bool {
	return f.events == 0 || int64(len(f.raw.b)+len(packet)) <= p.frameBytes.Load()
}

func (p *Publisher) full(f *frame) bool {
	return f.events >= p.opts.FrameEvents || int64(len(f.raw.b)) >= p.frameBytes.Load()
}

// enqueue hands f to the packer. The lock is held.
func (p *Publisher) enqueue(f *frame) {
	p.order++
	f.order = p.order
	p.sealed.push(f)
	wake(p.packWake)
}

// forget gives back what f holds. The lock is held; nobody else knows f.
func (p *Publisher) forget(f *frame) {
	p.held -= f.held
	if f.write != nil {
		f.write.settle()
	}
	if f.part != nil {
		p.spooling.settled(f.part)
	}
	if f.raw != nil {
		p.memory.put(f.raw)
	}
	if f.body != nil {
		p.memory.put(f.body)
	}
	*f = frame{ids: f.ids[:0]}
	p.pool.Put(f)
	p.announceRoom()
}

// announceRoom wakes those who wait for held to shrink. The lock is held.
func (p *Publisher) announceRoom() {
	if p.waiters > 0 {
		close(p.freed)
		p.freed = make(chan struct{})
	}
}

// wake leaves a note in a channel of size 1.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// A delivery is one Write waiting for its frames. It is guarded by the lock of
// the publisher until done is closed.
type delivery struct {
	pending int // frames, and the Write itself while it makes some
	refused []refusal
	err     error
	done    chan struct{}
}

type refusal struct {
	id  trace.ID
	err error
}

// settle tells d that one thing less is pending.
func (d *delivery) settle() {
	d.pending--
	if d.pending == 0 {
		close(d.done)
	}
}

// rejections finds the places of what was refused.
func (d *delivery) rejections(events []trace.Event) trace.Rejected {
	var rejected trace.Rejected
	for _, r := range d.refused {
		i := slices.IndexFunc(events, func(e trace.Event) bool {
			if e.ID.IsZero() {
				e.Identify()
			}
			return e.ID == r.id
		})
		if i >= 0 {
			rejected = append(rejected, trace.Rejection{Index: i, Reason: dropTooLarge, Err: r.err})
		}
	}
	return rejected
}

// queue is first in, first out.
type queue struct {
	frames []*frame
	head   int
}

func (q *queue) len() int { return len(q.frames) - q.head }

func (q *queue) push(f *frame) {
	if q.head > 0 && len(q.frames) == cap(q.frames) {
		n := copy(q.frames, q.frames[q.head:])
		clear(q.frames[n:])
		q.frames, q.head = q.frames[:n], 0
	}
	q.frames = append(q.frames, f)
}

// first is the frame that pop returns. There is one.
func (q *queue) first() *frame { return q.frames[q.head] }

// take removes the frames that are wanted and returns them.
func (q *queue) take(wanted func(*frame) bool) (taken []*frame) {
	left := q.frames[:0]
	for _, f := range q.frames[q.head:] {
		if wanted(f) {
			taken = append(taken, f)
		} else {
			left = append(left, f)
		}
	}
	clear(q.frames[len(left):])
	q.frames, q.head = left, 0
	return taken
}

// prepend puts frames before all others.
func (q *queue) prepend(frames []*frame) {
	q.frames = slices.Concat(frames, q.frames[q.head:])
	q.head = 0
}

// insert puts f where its place in the spool says.
func (q *queue) insert(f *frame) {
	i, _ := slices.BinarySearchFunc(q.frames[q.head:], f.spooled, func(g *frame, seq uint64) int { return cmp.Compare(g.spooled, seq) })
	q.frames = slices.Insert(q.frames, q.head+i, f)
}

func (q *queue) pop() *frame {
	if q.len() == 0 {
		return nil
	}
	f := q.frames[q.head]
	q.frames[q.head] = nil
	q.head++
	return f
}
