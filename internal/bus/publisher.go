package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Compressions of a frame.
const (
	CompressS2   = "s2"   // a third of the bytes on the wire and on disk
	CompressNone = "none" // any HEP tool can read the stream
)

// ErrPublisherClosed is returned by a Write that came too late: Run has ended.
var ErrPublisherClosed = errors.New("publisher closed")

// PublisherOptions say how events become frames. Zero values are the defaults.
type PublisherOptions struct {
	Agent        string        // who publishes: the last token of the subject
	Compression  string        // CompressS2 or CompressNone; empty is CompressS2
	FrameEvents  int           // a frame closes at this many events (64),
	FrameBytes   int           // before it grows beyond this many bytes (64 KiB),
	Linger       time.Duration // and this long after its first event (5 ms)
	BufferBytes  int64         // memory for frames that are not yet in the stream (64 MiB)
	Window       int           // frames that may wait for their acknowledgement (128)
	FlushTimeout time.Duration // how long Run goes on when its context has ended (5 s)
	Subsystem    string        // of the metric names: siptrace_<subsystem>_…; empty is "bus"
}

func (o PublisherOptions) withDefaults() PublisherOptions {
	o.Compression = cmp.Or(o.Compression, CompressS2)
	o.FrameEvents = cmp.Or(o.FrameEvents, 64)
	o.FrameBytes = cmp.Or(o.FrameBytes, 64<<10)
	o.Linger = cmp.Or(o.Linger, 5*time.Millisecond)
	o.BufferBytes = cmp.Or(o.BufferBytes, 64<<20)
	o.Window = cmp.Or(o.Window, 128)
	o.FlushTimeout = cmp.Or(o.FlushTimeout, 5*time.Second)
	o.Subsystem = cmp.Or(o.Subsystem, "bus")
	return o
}

func (o PublisherOptions) check() error {
	switch {
	case o.Compression != CompressS2 && o.Compression != CompressNone:
		return fmt.Errorf("compression %q is neither %s nor %s", o.Compression, CompressS2, CompressNone)
	case o.FrameEvents < 1:
		return fmt.Errorf("%d events are no frame", o.FrameEvents)
	case o.FrameBytes < 1 || o.FrameBytes > maxFrame:
		return fmt.Errorf("a frame of %d bytes is not between 1 and %d", o.FrameBytes, maxFrame)
	case o.Window < 1:
		return fmt.Errorf("a window of %d frames lets nothing through", o.Window)
	case o.BufferBytes < minBufferFrames*int64(o.frameRoom()):
		return fmt.Errorf("a buffer of %d bytes is too small: at least %d", o.BufferBytes, minBufferFrames*int64(o.frameRoom()))
	}
	return nil
}

// minBufferFrames is how many frames a buffer must hold: one that is filled by
// Offer, one by Write, which leaves half to Offer.
const minBufferFrames = 4

// frameRoom is the memory a frame is filled in: one event may be larger than
// FrameBytes and is then alone in its frame.
func (o PublisherOptions) frameRoom() int {
	_, size := sizeClass(max(o.FrameBytes, maxPacket))
	return size
}

// Publisher puts events into the stream, in frames. What it has accepted is
// published again until the stream has acknowledged it, however long NATS is
// away; memory for that is bounded. It is for use by any number of goroutines.
type Publisher struct {
	conn    *Conn
	js      jetstream.JetStream // its own: acknowledgements come back to us alone
	opts    PublisherOptions
	log     *slog.Logger
	metrics *publishMetrics
	subject string
	memory  buffers
	pool    sync.Pool // of *frame

	frameBytes atomic.Int64 // as in the options, less when the server takes less

	packWake chan struct{} // size 1: there is something to pack
	sendWake chan struct{} // size 1: there is something to send, or room in the window
	linger   *time.Timer   // fires when the open frame has waited long enough
	warn     throttle

	mu         sync.Mutex
	scratch    []byte      // one event being encoded
	identified trace.Event // an event that came without ID
	open       *frame      // filled by Offer; nil when there is none
	sealed     queue       // waiting to be packed
	ready      queue       // waiting to be sent
	flight     map[*nats.Msg]*frame
	held       int64 // bytes of all frames that are not yet in the stream
	waiters    int   // who wait for room
	freed      chan struct{}
	closed     bool // nothing more is accepted
	ended      bool // nothing more is sent

	backoff   time.Duration // after the latest failure
	holdUntil time.Time     // send nothing before
	failure   error         // of the latest frame; nil when it was stored
}

// NewPublisher returns a publisher that accepts events at once; [Publisher.Run]
// brings them into the stream.
func NewPublisher(conn *Conn, o PublisherOptions, reg prometheus.Registerer, log *slog.Logger) (*Publisher, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{
		conn:     conn,
		opts:     o,
		log:      log,
		subject:  EventsSubject + ".0." + Token(o.Agent), // one shard: frames stay full
		packWake: make(chan struct{}, 1),
		sendWake: make(chan struct{}, 1),
		linger:   time.NewTimer(o.Linger),
		warn:     throttle{every: time.Second},
		scratch:  make([]byte, 0, maxPacket),
		flight:   make(map[*nats.Msg]*frame, o.Window),
		freed:    make(chan struct{}),
	}
	p.frameBytes.Store(int64(o.FrameBytes))
	p.metrics = newPublishMetrics(reg, p)
	var err error
	p.js, err = jetstream.New(conn.nc,
		jetstream.WithPublishAsyncMaxPending(o.Window),
		jetstream.WithPublishAsyncTimeout(ackTimeout),
		jetstream.WithPublishAsyncAckHandler(p.acked),
		jetstream.WithPublishAsyncErrHandler(p.failed))
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	return p, nil
}

// Offer accepts as many events as there is room for, from the first, and
// returns their number; those behind it are the caller's to count or to keep.
// It never blocks and never waits for NATS. It keeps nothing the events point
// to. An event that can never be published counts as accepted: the metrics
// name it with its reason.
func (p *Publisher) Offer(events []trace.Event) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range events {
		if !p.offer(&events[i]) {
			return i
		}
	}
	return len(events)
}

func (p *Publisher) offer(e *trace.Event) bool {
	if p.closed || p.open == nil && !p.room(p.opts.BufferBytes) {
		return false
	}
	if e.ID.IsZero() {
		p.identified = *e
		e = &p.identified
		e.Identify()
		defer func() { p.identified = trace.Event{} }()
	}
	packet, err := trace.AppendEvent(p.scratch[:0], e)
	if err != nil {
		p.metrics.drop(dropUnencodable, 1)
		return true
	}
	if p.open != nil && !p.fits(p.open, packet) {
		p.seal()
	}
	if p.open == nil {
		if !p.room(p.opts.BufferBytes) {
			return false
		}
		p.open = p.newFrame(nil)
		p.linger.Reset(p.opts.Linger)
	}
	p.open.add(packet, e.ID)
	if p.full(p.open) {
		p.seal()
	}
	return true
}

// seal closes the open frame, if there is one with events.
func (p *Publisher) seal() {
	if p.open == nil {
		return
	}
	p.enqueue(p.open)
	p.open = nil
}

// Write publishes events and returns nil when all of them are in the stream.
// It waits for room and for NATS as long as ctx allows, and leaves half of the
// buffer to Offer. Events that can never be published come back as
// [trace.Rejected].
func (p *Publisher) Write(ctx context.Context, events []trace.Event) error {
	d := &delivery{pending: 1, done: make(chan struct{})}
	rejected, err := p.writeFrames(ctx, d, events)
	p.mu.Lock()
	d.settle()
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return fmt.Errorf("publish: %w", ctx.Err())
	}
	if d.err != nil {
		return fmt.Errorf("publish: %w", d.err)
	}
	rejected = append(rejected, d.rejections(events)...)
	if len(rejected) > 0 {
		return rejected
	}
	return nil
}

// writeFrames queues events in frames of their own, the last one sealed.
func (p *Publisher) writeFrames(ctx context.Context, d *delivery, events []trace.Event) (trace.Rejected, error) {
	var (
		rejected trace.Rejected
		f        *frame
		scratch  = p.memory.get(maxPacket)
	)
	defer p.memory.put(scratch)
	for i := range events {
		e := &events[i]
		if e.ID.IsZero() {
			c := *e
			c.Identify()
			e = &c
		}
		packet, err := trace.AppendEvent(scratch.b[:0], e)
		if err != nil {
			rejected = append(rejected, trace.Rejection{Index: i, Reason: dropUnencodable, Err: err})
			continue
		}
		if f != nil && (!p.fits(f, packet) || p.full(f)) {
			p.submit(f)
			f = nil
		}
		if f == nil {
			if f, err = p.awaitFrame(ctx, d); err != nil {
				return nil, err
			}
		}
		f.add(packet, e.ID)
	}
	if f != nil {
		p.submit(f)
	}
	return rejected, nil
}

// awaitFrame returns an empty frame as soon as there is room for one.
func (p *Publisher) awaitFrame(ctx context.Context, d *delivery) (*frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && !p.room(p.opts.BufferBytes/2) {
		freed := p.freed
		p.waiters++
		p.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		p.mu.Lock()
		p.waiters--
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if p.closed {
		return nil, ErrPublisherClosed
	}
	return p.newFrame(d), nil
}

// submit queues a frame of a Write.
func (p *Publisher) submit(f *frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		f.write.err = ErrPublisherClosed
		p.forget(f)
		return
	}
	p.enqueue(f)
}
