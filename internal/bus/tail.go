package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	tailAhead    = 8 << 20          // bytes the server may send before they are asked for, if no message is larger
	tailInactive = 30 * time.Second // an onlooker that is gone is forgotten after this
	tailLook     = 5 * time.Second  // without a frame for so long it is looked whether the stream is the same
	tailBeat     = 2 * time.Second  // the server's sign of life; two that fail to come must fit into the look
)

// ahead is how many bytes a reader may ask for at once that wants about n: a
// server that is allowed less than its next message takes sends nothing, ever.
func (c *Conn) ahead(n int) int {
	const around = 64 << 10 // the subjects count as well
	return max(n, int(c.nc.MaxPayload())+around)
}

// TailOptions say where to begin and what to show. The zero value shows what
// comes from now on.
type TailOptions struct {
	All     bool      // begin with the oldest frame
	Since   time.Time // begin with what was stored then; capture may have been earlier
	Seq     uint64    // begin with this frame, of each stream when there are several
	Subject string    // only frames of this subject, wildcards allowed; empty is all
	Stop    bool      // end when everything that was there at the start is shown
}

// Tail looks at the stream without touching it: nothing is acknowledged and no
// worker notices.
type Tail struct {
	conn *Conn
	opts TailOptions
	log  *slog.Logger
}

// NewTail returns a tail; [Tail.Run] reads.
func NewTail(conn *Conn, o TailOptions, log *slog.Logger) *Tail {
	if o.Subject == "" {
		o.Subject = EventsSubject + ".>"
	}
	return &Tail{conn, o, log}
}

// Run writes every frame to sink, in the order of the stream and each once. Of
// several streams each is in order. An error of the sink ends it; that NATS
// goes away does not.
func (t *Tail) Run(ctx context.Context, sink trace.Sink) error {
	names := t.learn(ctx)
	if len(names) == 1 {
		r := tailRun{Tail: t, stream: names[0], filter: t.opts.Subject, sink: sink}
		return r.run(ctx)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		wg   sync.WaitGroup
		one  = oneByOne(sink)
		errs = make([]error, len(names))
	)
	for shard, name := range names {
		filter, ok := filterOf(t.opts.Subject, shard, len(names))
		if !ok {
			continue
		}
		r := tailRun{Tail: t, stream: name, filter: filter, sink: one}
		wg.Go(func() {
			if errs[shard] = r.run(ctx); errs[shard] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// oneByOne is sink for several who write. Behind an error it gets nothing more.
func oneByOne(sink trace.Sink) trace.Sink {
	var (
		mu    sync.Mutex
		ended error
	)
	return trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		mu.Lock()
		defer mu.Unlock()
		if ended == nil {
			ended = sink.Write(ctx, events)
		}
		return ended
	})
}

// learn returns the streams there are, as soon as there are any; none when ctx
// has ended.
func (t *Tail) learn(ctx context.Context) []string {
	for pause := minBackoff; t.conn.await(ctx) == nil; pause = min(2*pause, maxBackoff) {
		names, err := t.conn.eventStreams(ctx)
		if err == nil {
			return names
		}
		if ctx.Err() == nil {
			t.log.Warn("reading the stream, trying again", "stream", StreamName, "err", plain(err))
		}
		sleep(ctx, pause)
	}
	return nil
}

// run reads one stream.
func (r *tailRun) run(ctx context.Context) error {
	for pause := minBackoff; ctx.Err() == nil; pause = min(2*pause, maxBackoff) {
		if r.conn.await(ctx) != nil {
			break
		}
		before := r.last
		err := r.read(ctx)
		if err == nil || r.failed {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		if r.last != before {
			pause = minBackoff
		}
		r.log.Warn("reading the stream, trying again", "stream", r.stream, "err", plain(err))
		sleep(ctx, pause)
	}
	return nil
}

// tailRun is one Run: where it is.
type tailRun struct {
	*Tail
	stream string
	filter string
	sink   trace.Sink
	last   uint64 // sequence of the frame shown last; 0 is none yet
	now    uint64 // last of the stream at the start
	failed bool   // the sink did

	created time.Time // when the stream was made; zero is not begun
	anew    bool      // it was made anew since: all that is in it is new

	decoder  trace.FrameDecoder
	unpacked []byte
}

// read shows frames; its error means that another attempt may help, unless the
// sink failed.
func (r *tailRun) read(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	cons, err := r.conn.js.OrderedConsumer(ctx, r.stream, r.config())
	if err != nil {
		return err
	}
	msgs, err := cons.Messages(jetstream.PullMaxBytes(r.conn.ahead(tailAhead)), jetstream.PullHeartbeat(tailBeat))
	if err != nil {
		return err
	}
	defer msgs.Stop()
	done := r.opts.Stop && cons.CachedInfo().NumPending == 0
	for !done {
		msg, err := r.next(ctx, msgs)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if done, err = r.show(ctx, msg); err != nil {
			return err
		}
	}
	return nil
}

// begin remembers where the stream ends at the start. In one that was made
// anew it begins with the first frame.
func (r *tailRun) begin(ctx context.Context) error {
	s, err := r.conn.js.Stream(ctx, r.stream)
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	switch {
	case r.created.IsZero():
		r.now = info.State.LastSeq
	case !r.created.Equal(info.Created):
		r.last, r.now, r.anew = 0, 0, true
	}
	r.created = info.Created
	return nil
}

// errAnew says that the stream is not the one that was read.
var errAnew = errors.New("the stream was made anew")

// next waits for a frame. While none comes it looks now and then whether the
// stream is still the same: in a new one the client library would wait for a
// sequence that is far ahead.
func (r *tailRun) next(ctx context.Context, msgs jetstream.MessagesContext) (jetstream.Msg, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, tailLook)
		msg, err := msgs.Next(jetstream.NextContext(wait))
		silent := err != nil && wait.Err() != nil && ctx.Err() == nil
		cancel()
		if !silent {
			return msg, err
		}
		s, err := r.conn.js.Stream(ctx, r.stream)
		if err != nil {
			return nil, err
		}
		if !s.CachedInfo().Created.Equal(r.created) {
			return nil, errAnew
		}
	}
}

// config asks for what follows the frame shown last.
func (r *tailRun) config() jetstream.OrderedConsumerConfig {
	cfg := jetstream.OrderedConsumerConfig{
		FilterSubjects:    []string{r.filter},
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		InactiveThreshold: tailInactive,
	}
	switch o := r.opts; {
	case r.last > 0:
		cfg.OptStartSeq = r.last + 1
	case o.All, r.anew:
		cfg.OptStartSeq = 1
	case o.Seq > 0:
		cfg.OptStartSeq = o.Seq
	case !o.Since.IsZero():
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &o.Since
	default:
		cfg.OptStartSeq = r.now + 1
	}
	return cfg
}

// show writes one frame to the sink and reports whether it was the last one
// wanted.
func (r *tailRun) show(ctx context.Context, msg jetstream.Msg) (last bool, err error) {
	md, err := msg.Metadata()
	if err != nil {
		return false, err
	}
	packets, grown, err := unpack(msg.Headers(), msg.Data(), r.unpacked)
	r.unpacked = grown
	var events []trace.Event
	if err == nil {
		events, err = r.decoder.Decode(packets)
	}
	if err != nil {
		r.log.Warn("message is no frame, left out", "seq", md.Sequence.Stream, "subject", msg.Subject(), "err", err)
	} else if err := r.sink.Write(ctx, events); err != nil && ctx.Err() == nil {
		r.failed = true
		return false, err
	}
	r.last = md.Sequence.Stream
	return r.opts.Stop && (md.NumPending == 0 || r.last >= r.now), nil
}
