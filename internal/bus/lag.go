package bus

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type consumeMetrics struct {
	events, frames, redelivered, retries, expired prometheus.Counter
	rejected                                      *prometheus.CounterVec
	pending, unacked, age                         prometheus.Gauge
}

func newConsumeMetrics(reg prometheus.Registerer, o ConsumerOptions) *consumeMetrics {
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"durable": o.Durable}, reg)
	}
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: o.Subsystem, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: o.Subsystem, Name: name, Help: help})
	}
	return &consumeMetrics{
		events:      counter("events_total", "Events delivered and acknowledged."),
		frames:      counter("frames_total", "Frames delivered and acknowledged."),
		redelivered: counter("redelivered_frames_total", "Frames that came a second time or later."),
		retries:     counter("write_retries_total", "Batches that had to be written again."),
		rejected: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: o.Subsystem, Name: "rejected_total",
			Help: "Events, or frames that are none, given up and kept in the rejects, by reason.",
		}, []string{"reason"}),
		expired: f.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "stream_expired_unread_total",
			Help: "Frames that the stream discarded before this consumer had read them. Each process of a durable counts them.",
		}),
		pending: gauge("pending_frames", "Frames in the stream that are still to be delivered."),
		unacked: gauge("unacked_frames", "Frames delivered to any process of the durable and not yet acknowledged."),
		age:     gauge("oldest_unread_seconds", "How long the oldest frame that is not acknowledged has been in the stream."),
	}
}

func (m *consumeMetrics) settled(frames, events int) {
	m.frames.Add(float64(frames))
	m.events.Add(float64(events))
}

// position is how far the durable has come, as last seen.
type position struct {
	stream, durable time.Time // when they were made: another time is another one
	floor           uint64    // everything up to here is acknowledged
	first           uint64    // the oldest frame the stream still has

	// For the count of what was discarded unread.
	since   delivered // where counting began
	again   uint64    // frames that came here a second time or later since then
	counted int64     // frames found missing since then
	less    int64     // how far the last look was below that
}

// delivered is the number of deliveries, and the place in the stream that they
// have reached.
type delivered struct{ consumer, stream uint64 }

// missing is how many frames were passed over without a delivery. Every
// delivery has a number, one that is repeated a new one: what the place in the
// stream has advanced by more than the first deliveries is missing. Of the
// repeated ones it knows those that came here, so it may be too low, but never
// too high.
func (p *position) missing(now delivered) int64 {
	return int64(now.stream-p.since.stream) - int64(now.consumer-p.since.consumer) + int64(p.again)
}

// watchLag looks at the lag until ctx ends.
func (r *reader) watchLag(ctx context.Context, jc jetstream.Consumer) {
	tick := time.NewTicker(r.opts.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.poll(ctx, jc)
		}
	}
}

// poll compares the durable with the stream. What it cannot learn stays as it was.
func (r *reader) poll(ctx context.Context, jc jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r.mu.Lock()
	again := r.position.again // before the durable, whose deliveries include them
	r.mu.Unlock()
	s, err := r.conn.js.Stream(ctx, r.stream)
	if err != nil {
		r.complain("stream not seen", plain(err))
		return
	}
	info, err := jc.Info(ctx) // after the stream, so that what is read meanwhile is not taken for lost
	if err != nil {
		r.complain("durable consumer not seen", plain(err))
		return
	}
	stream := s.CachedInfo()
	r.seen(stream, info, again)
	age := time.Duration(0)
	if info.NumPending > 0 || info.NumAckPending > 0 {
		age = ageOf(ctx, s, info)
	}
	r.setLag(lag{float64(info.NumPending), float64(info.NumAckPending), age.Seconds()})
}

// A lag is what a reader has before it.
type lag struct{ pending, unacked, age float64 }

// setLag tells the metrics, which are of all readers together.
func (r *reader) setLag(now lag) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lag = now
	var all lag
	for _, o := range r.readers {
		all = lag{all.pending + o.lag.pending, all.unacked + o.lag.unacked, max(all.age, o.lag.age)}
	}
	r.metrics.pending.Set(all.pending)
	r.metrics.unacked.Set(all.unacked)
	r.metrics.age.Set(all.age)
}

// seen updates the position and counts the frames that were discarded before
// they were delivered to anybody. Again is how many repeated deliveries had
// come when info was asked for. With a filter nobody knows which of the frames
// it would have matched.
func (r *reader) seen(stream *jetstream.StreamInfo, info *jetstream.ConsumerInfo, again uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.position
	switch {
	case !p.stream.Equal(stream.Created):
		*p = position{stream: stream.Created, durable: info.Created, since: delivered{info.Delivered.Consumer, info.Delivered.Stream}}
	case !p.durable.Equal(info.Created): // deleted, and made again to go on where it was
		*p = position{stream: p.stream, durable: info.Created, since: delivered{0, p.floor}}
	}
	p.first = stream.State.FirstSeq
	p.floor = info.AckFloor.Stream
	if !slices.Contains(r.opts.FilterSubjects, EventsSubject+".>") {
		return
	}
	now := delivered{info.Delivered.Consumer, max(info.Delivered.Stream, max(p.first, 1)-1)}
	later := p.again - min(again, p.again)
	switch more := p.missing(now) - int64(later) - p.counted; {
	case more > 0:
		p.counted += more
		p.less = 0
		r.metrics.expired.Add(float64(more))
		r.log.Error("the stream discarded frames that were not read: its limits are too small for this lag",
			"frames", more, "delivered", info.Delivered.Stream, "first", p.first)
	case more < 0 && more == p.less: // repeated to other processes: nothing more to come of it here
		*p = position{stream: p.stream, durable: p.durable, floor: p.floor, first: p.first, since: now}
	default:
		p.less = more
	}
}

// cameAgain counts a frame that is not delivered for the first time.
func (r *reader) cameAgain() {
	r.metrics.redelivered.Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.position.again++
}

// givenBack notes a frame that is not delivered.
func (r *reader) givenBack(msg jetstream.Msg) {
	md, err := msg.Metadata()
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = append(r.given, md.Sequence.Stream)
}

// countGivenBack counts the frames given back that the stream does not have
// any more, as of the last look.
func (r *reader) countGivenBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := 0
	for _, seq := range r.given {
		if seq < r.position.first {
			lost++
		}
	}
	r.given = nil
	if lost > 0 {
		r.metrics.expired.Add(float64(lost))
		r.log.Error("frames in hand were discarded by the stream and are lost", "frames", lost, "first", r.position.first)
	}
}

// resume lets a durable that was deleted go on where it was, if the stream is
// still the same. In a new stream everything is new.
func (r *reader) resume(cfg *jetstream.ConsumerConfig, stream *jetstream.StreamInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.position.stream.IsZero(): // never seen: as configured
	case r.position.stream.Equal(stream.Created):
		cfg.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		cfg.OptStartSeq = r.position.floor + 1
	default:
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	}
}

// complain says at most once a second, with a count, what goes wrong.
func (c *Consumer) complain(what string, err error) {
	if n, ok := c.warn.allow(time.Now()); ok {
		c.log.Warn(what, "count", n, "err", err)
	}
}
