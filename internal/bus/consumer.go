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
	AckWait        time.Duration // after this long without a sign a worker counts as dead (60 s)
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
	o.AckWait = cmp.Or(o.AckWait, 60*time.Second)
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

	mu       sync.Mutex
	position position
	waiting  error // why nothing is read now; nil while all is well
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
		waiting: errors.New("not started"),
	}, nil
}

// errGone says that the durable consumer is not there any more, or never was.
var errGone = errors.New("durable consumer is gone")

// Run reads until ctx ends; then it finishes the writes that are running. It
// waits for NATS and the stream, and makes the durable where it is missing. The
// error is one that waiting cannot cure.
func (c *Consumer) Run(ctx context.Context, sink trace.Sink) error {
	for ctx.Err() == nil {
		jc, err := c.bind(ctx)
		if err != nil {
			return err
		}
		if jc == nil {
			break
		}
		c.setWaiting(nil)
		c.read(ctx, jc, sink)
	}
	c.conn.flush() // the last acknowledgements
	return nil
}

// Check says in plain words why nothing is read now. It is nil while all is well.
func (c *Consumer) Check(ctx context.Context) error {
	if err := c.conn.Check(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting != nil {
		return fmt.Errorf("consumer %s: %w", c.opts.Durable, plain(c.waiting))
	}
	return nil
}

func (c *Consumer) setWaiting(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = why
}

// read runs the workers until ctx ends or the durable is gone.
func (c *Consumer) read(ctx context.Context, jc jetstream.Consumer, sink trace.Sink) {
	life, end := context.WithCancel(ctx)
	defer end()
	c.poll(life, jc) // before anything is read: what has expired meanwhile is still to be seen
	var wg sync.WaitGroup
	for range c.opts.Workers {
		w := newWorker(c, jc, sink)
		wg.Go(func() {
			defer end() // one that finds the durable gone stops all
			w.run(ctx, life)
		})
	}
	wg.Go(func() { c.watchLag(life, jc) })
	wg.Wait()
}

// Ensure makes the durable consumer if it is missing, for workers that may only
// use it. It waits for nothing.
func (c *Consumer) Ensure(ctx context.Context) error {
	jc, err := c.bindOnce(ctx)
	if err != nil {
		return fmt.Errorf("consumer %s: %w", c.opts.Durable, err)
	}
	return c.verify(jc)
}

// bind returns the durable consumer as soon as there is one; nil when ctx has
// ended.
func (c *Consumer) bind(ctx context.Context) (jetstream.Consumer, error) {
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		if c.conn.await(ctx) != nil {
			return nil, nil
		}
		jc, err := c.bindOnce(ctx)
		if err == nil {
			return jc, c.verify(jc)
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		c.setWaiting(err)
		if n, ok := c.warn.allow(time.Now()); ok {
			c.log.Warn("waiting for the stream", "stream", StreamName, "count", n, "err", plain(err))
		}
		sleep(ctx, pause)
	}
}

// bindOnce binds the durable and makes it when it is missing. Binding comes
// first, for a worker may not be allowed to make it.
func (c *Consumer) bindOnce(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	jc, err := c.conn.js.Consumer(ctx, StreamName, c.opts.Durable)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return jc, err
	}
	cfg := c.config()
	if s, err := c.conn.js.Stream(ctx, StreamName); err == nil {
		c.resume(&cfg, s.CachedInfo())
	}
	c.log.Info("making the durable consumer", "stream", StreamName, "deliver", cfg.DeliverPolicy, "start", cfg.OptStartSeq)
	jc, err = c.conn.js.CreateConsumer(ctx, StreamName, cfg)
	if errors.Is(err, jetstream.ErrConsumerExists) { // another process was quicker
		return c.conn.js.Consumer(ctx, StreamName, c.opts.Durable)
	}
	return jc, err
}

// config is the durable as it is made when it is missing. It has no limit on
// deliveries, which would leave the ack floor behind for ever, and no backoff,
// which would replace AckWait.
func (c *Consumer) config() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable:       c.opts.Durable,
		Description:   "siptrace worker",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       c.opts.AckWait,
		MaxAckPending: c.opts.MaxAckPending,
		MaxDeliver:    unlimited,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if c.opts.New {
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	if len(c.opts.FilterSubjects) == 1 {
		cfg.FilterSubject = c.opts.FilterSubjects[0]
	} else {
		cfg.FilterSubjects = c.opts.FilterSubjects
	}
	return cfg
}

// verify refuses a durable that would lose events, and says where it is not
// as wanted: like a stream, it stays as an administrator made it.
func (c *Consumer) verify(jc jetstream.Consumer) error {
	have, want := jc.CachedInfo().Config, c.config()
	if have.AckPolicy != jetstream.AckExplicitPolicy {
		return fmt.Errorf("durable consumer %s acknowledges %v: only explicit acknowledgement is safe; delete it or choose another name",
			c.opts.Durable, have.AckPolicy)
	}
	d := comparison{stream: StreamName}
	d.add("filter", filters(have), filters(want))
	d.add("ack wait", have.AckWait, want.AckWait)
	d.add("max ack pending", have.MaxAckPending, want.MaxAckPending)
	d.add("max deliver", have.MaxDeliver, want.MaxDeliver)
	for _, diff := range d.found {
		c.log.Warn("durable consumer is not as wanted", "setting", diff.Setting, "have", diff.Have, "want", diff.Want)
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
