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
	Shards       int           // streams the fleet has, as far as is known (1); see [ShardOf]
	AwaitShards  bool          // nothing is sent until [Publisher.SetShards] has said how many they are
	Subsystem    string        // of the metric names: siptrace_<subsystem>_…; empty is "bus"

	Spool     Spool         // where offered frames go while the stream takes none; nil is memory alone
	SpoolSync time.Duration // how long they may stay in memory then (200 ms)
	DrainRate int           // events a second that come back from it, at most (50,000)
}

func (o PublisherOptions) withDefaults() PublisherOptions {
	o.Compression = cmp.Or(o.Compression, CompressS2)
	o.FrameEvents = cmp.Or(o.FrameEvents, 64)
	o.FrameBytes = cmp.Or(o.FrameBytes, 64<<10)
	o.Linger = cmp.Or(o.Linger, 5*time.Millisecond)
	o.BufferBytes = cmp.Or(o.BufferBytes, 64<<20)
	o.Window = cmp.Or(o.Window, 128)
	o.FlushTimeout = cmp.Or(o.FlushTimeout, 5*time.Second)
	o.Shards = cmp.Or(o.Shards, 1)
	o.SpoolSync = cmp.Or(o.SpoolSync, 200*time.Millisecond)
	o.DrainRate = cmp.Or(o.DrainRate, 50_000)
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
	case o.Shards < 1 || o.Shards > MaxShards:
		return fmt.Errorf("%d shards are not between 1 and %d", o.Shards, MaxShards)
	case o.SpoolSync < 0 || o.DrainRate < 0:
		return errors.New("a spool with a time or a rate below zero")
	case o.BufferBytes < o.minBuffer():
		return fmt.Errorf("a buffer of %d bytes is too small: at least %d", o.BufferBytes, o.minBuffer())
	}
	return nil
}

// CheckBuffer reports why --buffer is no buffer for a publisher; nought is the
// default.
func CheckBuffer(n int64) error {
	if least := (PublisherOptions{}).withDefaults().minBuffer(); n != 0 && n < least {
		return fmt.Errorf("a buffer of %d bytes is too small: at least %d", n, least)
	}
	return nil
}

// minBuffer is what a buffer must hold: a frame that is filled by Offer, one by
// Write, which leaves half to Offer.
func (o PublisherOptions) minBuffer() int64 { return 4 * int64(o.frameRoom()) }

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
	conn     *Conn
	js       jetstream.JetStream // its own: acknowledgements come back to us alone
	opts     PublisherOptions
	log      *slog.Logger
	metrics  *publishMetrics
	memory   buffers
	pool     sync.Pool // of *frame
	spooling *spooling // nil without a spool

	frameBytes atomic.Int64 // as in the options, less when the server takes less

	packWake chan struct{} // size 1: there is something to pack
	sendWake chan struct{} // size 1: there is something to send, or room in the window
	linger   *time.Timer   // fires when the oldest open frame has waited long enough
	warn     throttle
	diskWarn throttle

	mu         sync.Mutex
	scratch    []byte      // one event being encoded
	identified trace.Event // an event that came without ID
	subjects   []string    // one for each shard
	unsure     bool        // whether those are the right ones
	open       []*frame    // filled by Offer, one for each shard; nil where there is none
	opened     int         // of those not nil
	order      uint64      // of the frame sealed last
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
	progress  time.Time     // when a frame was acknowledged last, or the first one sent after a rest
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
		unsure:   o.AwaitShards,
		packWake: make(chan struct{}, 1),
		sendWake: make(chan struct{}, 1),
		linger:   time.NewTimer(o.Linger),
		warn:     throttle{every: time.Second},
		diskWarn: throttle{every: time.Second},
		scratch:  make([]byte, 0, maxPacket),
		flight:   make(map[*nats.Msg]*frame, o.Window),
		freed:    make(chan struct{}),
	}
	p.address(o.Shards)
	if o.Spool != nil {
		p.spooling = newSpooling(o)
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
	shard := ShardOf(e, len(p.open))
	if p.closed || p.open[shard] == nil && !p.room(p.opts.BufferBytes) {
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
	if f := p.open[shard]; f != nil && !p.fits(f, packet) {
		p.seal(shard)
	}
	if p.open[shard] == nil {
		if !p.room(p.opts.BufferBytes) {
			return false
		}
		p.open[shard] = p.newFrame(shard, nil)
		if p.opened++; p.opened == 1 {
			p.linger.Reset(p.opts.Linger)
		}
	}
	p.open[shard].add(packet, e.ID)
	if p.full(p.open[shard]) {
		p.seal(shard)
	}
	return true
}

// seal closes the open frame of a shard, if there is one.
func (p *Publisher) seal(shard int) {
	if p.open[shard] == nil {
		return
	}
	p.enqueue(p.open[shard])
	p.open[shard] = nil
	p.opened--
}

// sealAll closes every open frame.
func (p *Publisher) sealAll() {
	for shard := range p.open {
		p.seal(shard)
	}
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
		shards   = p.shards()
		open     = make([]*frame, shards)
		scratch  = p.memory.get(maxPacket)
	)
	defer p.memory.put(scratch)
	submit := func() {
		for shard, f := range open {
			if f != nil {
				p.submit(f)
				open[shard] = nil
			}
		}
	}
	defer submit()
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
		shard := ShardOf(e, shards)
		if f := open[shard]; f != nil && (!p.fits(f, packet) || p.full(f)) {
			p.submit(f)
			open[shard] = nil
		}
		if open[shard] == nil {
			if open[shard], err = p.awaitFrame(ctx, shard, shards, d, submit); err != nil {
				return nil, err
			}
		}
		open[shard].add(packet, e.ID)
	}
	return rejected, nil
}

// awaitFrame returns an empty frame as soon as there is room for one. Before
// it waits it calls submit, so that room is not waited for in vain.
func (p *Publisher) awaitFrame(ctx context.Context, shard, shards int, d *delivery, submit func()) (*frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && !p.room(p.opts.BufferBytes/2) {
		p.mu.Unlock()
		submit()
		p.mu.Lock()
	}
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
	f := p.newFrame(shard, d)
	f.shards = shards
	return f, nil
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
