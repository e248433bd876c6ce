package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/sethvargo/go-retry"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// pieceBytes is how much is encoded before it is written.
	pieceBytes = 256 << 10

	// Between two attempts to connect, from and to; plus or minus a quarter.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// stream is the sink of a destination for HEP version 3 over TCP or TLS.
//
// There is one connection at a time. Write returns nil when the peer's kernel
// has acknowledged every byte of the events. Several Writes may be under way:
// each waits for its own bytes only. When the connection breaks they all fail,
// and the events are sent again, whole, over the next one.
type stream struct {
	d     Destination
	o     Options
	enc   encoder
	pick  selection
	count *counters
	log   *slog.Logger
	life  life
	state *state

	turn    turn // guards what follows
	link    *link
	buf     []byte
	backoff retry.Backoff
	next    time.Time // no attempt to connect before
}

// errNotConnected is how a stream begins.
var errNotConnected = errors.New("not connected")

func newStream(d Destination, o Options, pick selection, count *counters, log *slog.Logger) (*stream, error) {
	if _, err := tlsConfig(d); err != nil {
		return nil, err
	}
	s := &stream{
		d: d, o: o, enc: newHEPEncoder(d, o.Guard), pick: pick, count: count, log: log,
		life: newLife(), turn: newTurn(), state: &state{d: d, log: log, err: errNotConnected},
	}
	s.calm()
	return s, nil
}

// calm makes the next attempt to connect an immediate one.
func (s *stream) calm() {
	s.backoff = retry.WithJitterPercent(25, retry.WithCappedDuration(maxBackoff, retry.NewExponential(firstBackoff)))
	s.next = time.Time{}
}

// Write sends events and waits until the peer's kernel has them.
func (s *stream) Write(ctx context.Context, events []trace.Event) error {
	ctx, stop := s.life.within(ctx)
	defer stop()
	job := job{events: events, no: rejects{count: s.count}}
	l, err := s.push(ctx, &job)
	if err == nil && l != nil {
		err = l.acknowledged(ctx, job.end, s.o.WriteTimeout)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("send to %s: %w", s.d.HostPort(), err)
	}
	s.count.sent.Add(float64(job.sent))
	s.count.bytes.Add(float64(job.bytes))
	return job.no.err()
}

// job is one Write.
type job struct {
	events []trace.Event
	done   int // of the events
	no     rejects

	sent, bytes int
	end         uint64 // position in the connection behind the last byte
}

// push writes the events of a job to a connection and returns that. It is nil
// if there was nothing to write.
func (s *stream) push(ctx context.Context, job *job) (*link, error) {
	if err := s.turn.take(ctx); err != nil {
		return nil, err
	}
	defer s.turn.give()
	defer s.enc.forget()
	var l *link
	for {
		s.encode(job)
		if len(s.buf) == 0 {
			return l, nil
		}
		if l == nil {
			var err error
			if l, err = s.connected(ctx); isLoop(err) {
				s.skipAll(job)
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
		}
		if err := l.write(ctx, s.buf, s.o.WriteTimeout); err != nil {
			return nil, err
		}
		job.end = l.written()
	}
}

// encode fills the buffer with the next events of a job. It is empty when
// there are none left.
func (s *stream) encode(job *job) {
	s.buf = s.buf[:0]
	for ; job.done < len(job.events) && len(s.buf) < pieceBytes; job.done++ {
		e := &job.events[job.done]
		if !s.pick.takes(e) {
			continue
		}
		buf, err := s.enc.append(s.buf, e)
		if err != nil {
			job.no.take(job.done, err)
			continue
		}
		s.buf = buf
		job.sent++
	}
	job.bytes += len(s.buf)
}

// skipAll settles a job whose events would come back.
func (s *stream) skipAll(job *job) {
	for len(s.buf) > 0 {
		s.encode(job)
	}
	for range job.sent {
		s.count.skip(skipLoop)
	}
	job.sent, job.bytes = 0, 0
}

// connected returns a connection that is up. With the turn taken.
func (s *stream) connected(ctx context.Context) (*link, error) {
	if s.life.ended() {
		return nil, errClosed
	}
	if s.link != nil {
		loop := s.d.refused(s.o.Guard, s.link.conn.to)
		switch {
		case loop != nil:
			s.state.set(loop)
			s.link.close()
		case s.link.up():
			return s.link, nil
		}
		s.link.wait()
		if s.link.proven.Load() {
			s.calm()
		}
		s.link = nil
	}
	if !sleep(ctx, time.Until(s.next)) {
		return nil, context.Cause(ctx)
	}
	return s.connect(ctx)
}

// connect makes a connection. With the turn taken.
func (s *stream) connect(ctx context.Context) (*link, error) {
	within, cancel := context.WithTimeout(ctx, s.o.DialTimeout)
	defer cancel()
	conn, err := dialStream(within, s.d, s.o)
	if isLoop(err) {
		s.state.set(err)
		s.calm()
		return nil, err
	}
	pause, _ := s.backoff.Next() // it goes on for ever
	s.next = time.Now().Add(pause)
	if err != nil {
		if ctx.Err() == nil {
			s.count.trouble(troubleDial)
			s.state.set(err)
		}
		return nil, err
	}
	s.log.Info("connected to collector", "peer", conn.peer, "from", conn.local)
	s.count.connects.Inc()
	s.count.connections.Inc()
	s.state.note(nil)
	s.link = startLink(conn, s.ended)
	return s.link, nil
}

// ended is told once of each connection why it is over.
func (s *stream) ended(err error) {
	s.count.connections.Dec()
	switch {
	case errors.Is(err, errClosed):
		return
	case errors.Is(err, errPeerClosed):
		s.count.trouble(troubleLost)
		s.state.note(err)
		s.log.Info("collector closed the connection")
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.count.trouble(troubleTimeout)
	default:
		s.count.trouble(troubleLost)
	}
	s.state.set(err)
}

// Check connects if there is no connection and it is time to try.
func (s *stream) Check(ctx context.Context) error {
	if !s.turn.try() {
		return s.state.check()
	}
	defer s.turn.give()
	if s.link != nil && s.link.up() {
		return nil
	}
	if time.Now().Before(s.next) && (s.link == nil || !s.link.proven.Load()) {
		return s.state.check()
	}
	ctx, stop := s.life.within(ctx)
	defer stop()
	l, err := s.connected(ctx)
	if err == nil {
		err = l.settled(ctx)
	}
	if err != nil {
		return fmt.Errorf("waiting for collector %s: %w", s.d.HostPort(), plain(err))
	}
	return nil
}

// Close closes the connection.
func (s *stream) Close() error {
	s.life.end()
	s.turn <- struct{}{}
	defer s.turn.give()
	if s.link != nil {
		s.link.close()
		s.link.wait()
		s.link = nil
	}
	return nil
}
