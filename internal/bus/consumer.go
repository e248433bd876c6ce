package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// ConsumerOptions say what a worker reads and in what portions. Zero values
// are the defaults.
type ConsumerOptions struct {
	Durable        string        // processes with the same name share the work
	FilterSubjects []string      // empty is every event
	New            bool          // a durable that does not exist yet begins with what comes now, not with all there is
	BatchEvents    int           // a batch is written at about this many events (5,000),
	BatchBytes     int           // or bytes (16 MiB),
	Linger         time.Duration // or this long after its first event (200 ms)
	Workers        int           // batches written at the same time (2)
	MaxAckPending  int           // frames in the hands of all workers together (1,024)
	AckWait        time.Duration // after this long without a sign a worker counts as dead (15 s)
	DrainTimeout   time.Duration // how long a running Write may go on when Run has to end (30 s)
	Poll           time.Duration // how often the lag is looked at (5 s)
	Subsystem      string        // of the metric names: siptrace_<subsystem>_…; empty is "consumer"
}

func (o ConsumerOptions) withDefaults() ConsumerOptions {
	if len(o.FilterSubjects) == 0 {
		o.FilterSubjects = []string{EventsSubject + ".>"}
	}
	o.BatchEvents = cmp.Or(o.BatchEvents, 5000)
	o.BatchBytes = cmp.Or(o.BatchBytes, 16<<20)
	o.Linger = cmp.Or(o.Linger, 200*time.Millisecond)
	o.Workers = cmp.Or(o.Workers, 2)
	o.MaxAckPending = cmp.Or(o.MaxAckPending, 1024)
	o.AckWait = cmp.Or(o.AckWait, 15*time.Second)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	o.Poll = cmp.Or(o.Poll, 5*time.Second)
	o.Subsystem = cmp.Or(o.Subsystem, "consumer")
	return o
}

func (o ConsumerOptions) check() error {
	switch {
	case o.Durable == "" || o.Durable != Token(o.Durable):
		return fmt.Errorf("durable name %q: letters, digits, '-' and '_' only, at most %d", o.Durable, maxToken)
	case o.BatchEvents < 1 || o.BatchBytes < 1:
		return errors.New("a batch of nothing")
	case o.Workers < 1 || o.MaxAckPending < o.Workers:
		return fmt.Errorf("%d workers with %d unacknowledged frames among them", o.Workers, o.MaxAckPending)
	case o.Linger < 0 || o.AckWait < 0 || o.DrainTimeout < 0 || o.Poll < 0:
		return errors.New("a time below zero")
	}
	return nil
}

// Consumer is the source of a worker: it reads the stream through a durable
// consumer that it shares with every process of the same durable name. A frame
// is acknowledged when the sink has taken its events, and not before.
type Consumer struct {
	conn    *Conn
	opts    ConsumerOptions
	rejects *Rejects
	log     *slog.Logger
	metrics *consumeMetrics
	warn    throttle

	turns   chan struct{} // one for each batch that is being written
	mu      sync.Mutex
	waiting error // why nothing is read now; nil while all is well
	readers []*reader
}

// A reader reads one stream: the only one, or that of a shard.
type reader struct {
	*Consumer
	stream  string
	filters []string

	// Guarded by the lock of the consumer.
	position position
	given    []uint64 // frames given back, by sequence
	waiting  error    // why it reads nothing now
	lag      lag
}

// NewConsumer returns a consumer; [Consumer.Run] reads.
func NewConsumer(conn *Conn, o ConsumerOptions, rejects *Rejects, reg prometheus.Registerer, log *slog.Logger) (*Consumer, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	return &Consumer{
		conn:    conn,
		opts:    o,
		rejects: rejects,
		log:     log.With("durable", o.Durable),
		metrics: newConsumeMetrics(reg, o),
		warn:    throttle{every: time.Second},
		turns:   make(chan struct{}, o.Workers),
		waiting: errors.New("not started"),
	}, nil
}

// errResharded says that the events are in other streams now.
var errResharded = errors.New("events are spread over other streams")

// errGone says that the durable consumer is not there any more, or never was.
var errGone = errors.New("durable consumer is gone")

// Run reads until ctx ends; then it finishes the writes that are running. It
// waits for NATS and the stream, and makes the durable where it is missing. The
// error is one that waiting cannot cure.
func (c *Consumer) Run(ctx context.Context, sink trace.Sink) error {
	defer c.conn.flush() // the last acknowledgements
	for ctx.Err() == nil {
		names := c.learn(ctx)
		if len(names) == 0 {
			break
		}
		if err := c.runShards(ctx, names, c.inTurn(sink)); !errors.Is(err, errResharded) {
			return err
		}
	}
	return nil
}

// inTurn lets sink be written to by no more than the wanted number of workers,
// whatever the number of shards.
func (c *Consumer) inTurn(sink trace.Sink) trace.Sink {
	return trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		select {
		case c.turns <- struct{}{}:
			defer func() { <-c.turns }()
			return sink.Write(ctx, events)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// learn returns the streams there are, as soon as there are any; none when ctx
// has ended.
func (c *Consumer) learn(ctx context.Context) []string {
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		if c.conn.await(ctx) != nil {
			return nil
		}
		names, err := c.eventStreams(ctx)
		if err == nil || ctx.Err() != nil {
			return names
		}
		c.setWaiting(err)
		c.complainOfStream(StreamName, pause, err)
		sleep(ctx, pause)
	}
}

// complainOfStream says that a stream is not there. Where everything is started
// at once, a tap is about to make it: only a pause that has grown says more.
func (c *Consumer) complainOfStream(name string, pause time.Duration, err error) {
	if pause < time.Second/2 {
		return
	}
	if n, ok := c.warn.allow(time.Now()); ok {
		c.log.Warn("waiting for the stream", "stream", name, "count", n, "err", plain(err))
	}
}

func (c *Consumer) eventStreams(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.conn.eventStreams(ctx)
}

// runShards reads every stream until ctx ends, or until one cannot be read for
// a reason that waiting does not cure.
func (c *Consumer) runShards(ctx context.Context, names []string, sink trace.Sink) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	readers := c.setReaders(names)
	var wg sync.WaitGroup
	for _, r := range readers {
		wg.Go(func() {
			if err := r.run(ctx, names, sink); err != nil {
				stop(err)
			}
		})
	}
	if len(readers) == 0 {
		<-ctx.Done() // none of the streams has what is wanted
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// setReaders makes a reader for each stream, or takes the one there was.
func (c *Consumer) setReaders(names []string) []*reader {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = nil
	old := c.readers
	c.readers = nil
	for shard, name := range names {
		var filters []string
		for _, subject := range c.opts.FilterSubjects {
			if f, ok := filterOf(subject, shard, len(names)); ok {
				filters = append(filters, f)
			}
		}
		if len(filters) == 0 {
			continue // nothing of this shard is wanted
		}
		r := &reader{Consumer: c, stream: name, filters: filters}
		for _, o := range old {
			if o.stream == name {
				r.position = o.position
			}
		}
		r.waiting = errors.New("not started")
		c.readers = append(c.readers, r)
	}
	return c.readers
}

// run reads the stream until ctx ends.
func (r *reader) run(ctx context.Context, names []string, sink trace.Sink) error {
	for ctx.Err() == nil {
		jc, err := r.bind(ctx, names)
		if err != nil || jc == nil {
			return err
		}
		r.setWaiting(nil)
		r.read(ctx, jc, sink)
	}
	return nil
}

// Check says in plain words why nothing is read now. It is nil while all is well.
func (c *Consumer) Check(ctx context.Context) error {
	if err := c.conn.Check(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := c.waiting
	for _, r := range c.readers {
		waiting = cmp.Or(waiting, r.waiting)
	}
	if waiting != nil {
		return fmt.Errorf("consumer %s: %w", c.opts.Durable, plain(waiting))
	}
	return nil
}

func (r *reader) setWaiting(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = why
}

func (c *Consumer) setWaiting(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = why
}

// read runs the workers until ctx ends or the durable is gone.
func (r *reader) read(ctx context.Context, jc jetstream.Consumer, sink trace.Sink) {
	life, end := context.WithCancel(ctx)
	defer end()
	r.poll(life, jc) // before anything is read: what has expired meanwhile is still to be seen
	var wg sync.WaitGroup
	for range r.opts.Workers {
		w := newWorker(r, jc, sink)
		wg.Go(func() {
			defer end() // one that finds the durable gone stops all
			w.run(ctx, life)
		})
	}
	wg.Go(func() { r.watchLag(life, jc) })
	wg.Wait()
	if r.conn.connected() {
		r.poll(context.WithoutCancel(ctx), jc) // what has expired since the last look
	}
	r.countGivenBack()
}

// Ensure makes the durable consumer if it is missing, for workers that may only
// use it. It waits for nothing.
func (c *Consumer) Ensure(ctx context.Context) error {
	names, err := c.eventStreams(ctx)
	if err != nil {
		return fmt.Errorf("consumer %s: %w", c.opts.Durable, err)
	}
	for _, r := range c.setReaders(names) {
		jc, err := r.bindOnce(ctx)
		if err == nil {
			err = r.verify(jc)
		}
		if err != nil {
			return fmt.Errorf("consumer %s: %w", c.opts.Durable, err)
		}
	}
	return nil
}

// bind returns the durable consumer as soon as there is one; nil when ctx has
// ended. The names are those of all streams, as far as we know.
func (r *reader) bind(ctx context.Context, names []string) (jetstream.Consumer, error) {
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		if r.conn.await(ctx) != nil {
			return nil, nil
		}
		jc, err := r.bindOnce(ctx)
		if err == nil {
			return jc, r.verify(jc)
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if now, err := r.eventStreams(ctx); err == nil && !slices.Equal(now, names) {
				return nil, errResharded
			}
		}
		r.setWaiting(err)
		r.complainOfStream(r.stream, pause, err)
		sleep(ctx, pause)
	}
}

// bindOnce binds the durable and makes it when it is missing. Binding comes
// first, for a worker may not be allowed to make it.
func (r *reader) bindOnce(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	jc, err := r.conn.js.Consumer(ctx, r.stream, r.opts.Durable)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return jc, err
	}
	cfg := r.config()
	if s, err := r.conn.js.Stream(ctx, r.stream); err == nil {
		r.resume(&cfg, s.CachedInfo())
	}
	r.log.Info("making the durable consumer", "stream", r.stream, "deliver", cfg.DeliverPolicy, "start", cfg.OptStartSeq)
	jc, err = r.conn.js.CreateConsumer(ctx, r.stream, cfg)
	if errors.Is(err, jetstream.ErrConsumerExists) { // another process was quicker
		return r.conn.js.Consumer(ctx, r.stream, r.opts.Durable)
	}
	return jc, err
}

// config is the durable as it is made when it is missing. It has no limit on
// deliveries, which would leave the ack floor behind for ever, and no backoff,
// which would replace AckWait.
func (r *reader) config() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable:       r.opts.Durable,
		Description:   "siptrace worker",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       r.opts.AckWait,
		MaxAckPending: r.opts.MaxAckPending,
		MaxDeliver:    unlimited,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if r.opts.New {
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	if len(r.filters) == 1 {
		cfg.FilterSubject = r.filters[0]
	} else {
		cfg.FilterSubjects = r.filters
	}
	return cfg
}

// verify refuses a durable that would lose events, and says where it is not
// as wanted: like a stream, it stays as an administrator made it.
func (r *reader) verify(jc jetstream.Consumer) error {
	have, want := jc.CachedInfo().Config, r.config()
	if have.AckPolicy != jetstream.AckExplicitPolicy {
		return fmt.Errorf("durable consumer %s acknowledges %v: only explicit acknowledgement is safe; delete it or choose another name",
			r.opts.Durable, have.AckPolicy)
	}
	d := comparison{stream: r.stream}
	d.add("filter", filters(have), filters(want))
	d.add("ack wait", have.AckWait, want.AckWait)
	d.add("max ack pending", have.MaxAckPending, want.MaxAckPending)
	d.add("max deliver", have.MaxDeliver, want.MaxDeliver)
	for _, diff := range d.found {
		r.log.Warn("durable consumer is not as wanted", "setting", diff.Setting, "have", diff.Have, "want", diff.Want)
	}
	return nil
}

func filters(cfg jetstream.ConsumerConfig) []string {
	if cfg.FilterSubject != "" {
		return []string{cfg.FilterSubject}
	}
	return slices.Sorted(slices.Values(cfg.FilterSubjects))
}

// sleep returns after d or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
