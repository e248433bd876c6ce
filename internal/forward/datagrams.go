package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"syscall"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// batchSize is the most datagrams that one system call sends.
	batchSize = 64

	// batchBytes is how much is encoded before it is sent.
	batchBytes = 1 << 20

	// probeTime is how long the far side's kernel has to say that nobody
	// listens, before it is believed that somebody does.
	probeTime = 250 * time.Millisecond
)

// errRefused says that the far side's kernel has no listener on the port.
var errRefused = syscall.ECONNREFUSED

// datagrams is the sink of a destination over UDP: one event, one datagram.
//
// UDP acknowledges nothing, but a host on whose port nobody listens says so by
// ICMP. Then Write fails, and the events of that Write are sent again. From
// then on, until somebody listens, every Write sends one datagram and waits a
// moment for another refusal. So a collector that is away for a while misses
// what was on the way, and no more. A destination that is to ignore refusals
// sends on, for whoever picks the datagrams off the wire.
type datagrams struct {
	d        Destination
	o        Options
	enc      encoder
	fallback Sink // nil is none
	pick     selection
	count    *counters
	log      *slog.Logger
	target   *target
	life     life
	state    *state

	turn    turn // guards what follows
	sock    *socket
	refused bool // nobody listened when we last asked
	batch   batch
	no      rejects
	over    []trace.Event // of this Write, for the fallback
	overAt  []int         // where they are in it
}

func newDatagrams(d Destination, o Options, enc encoder, fallback Sink, pick selection, count *counters, log *slog.Logger) (*datagrams, error) {
	s := &datagrams{
		d: d, o: o, enc: enc, fallback: fallback, pick: pick, count: count, log: log,
		life: newLife(), turn: newTurn(), state: &state{d: d, log: log},
	}
	s.no.count = count
	s.target = newTarget(d, o, s.life.ctx, count, log)
	return s, nil
}

// Write sends events, each in a datagram of its own. What is too long for a
// datagram goes to the fallback, or is rejected.
func (s *datagrams) Write(ctx context.Context, events []trace.Event) error {
	if err := s.turn.take(ctx); err != nil {
		return err
	}
	defer s.turn.give()
	defer s.reset()
	for i := range events {
		e := &events[i]
		if !s.pick.takes(e) {
			continue
		}
		if err := s.batch.add(s.enc, e, i); err != nil {
			s.no.take(i, err)
		}
		if s.batch.full() {
			if err := s.flush(ctx, events); err != nil {
				return err
			}
		}
	}
	if err := s.flush(ctx, events); err != nil {
		return err
	}
	if err := s.writeOver(ctx); err != nil {
		return err
	}
	return s.no.err()
}

// reset lets go of everything that belongs to the caller of Write.
func (s *datagrams) reset() {
	s.enc.forget()
	s.batch.reset()
	s.no.list = nil
	clear(s.over)
	s.over, s.overAt = s.over[:0], s.overAt[:0]
}

// flush sends the batch.
func (s *datagrams) flush(ctx context.Context, events []trace.Event) error {
	if s.batch.empty() {
		return nil
	}
	defer s.batch.reset()
	err := s.open(ctx)
	if err == nil {
		err = s.send(events)
	}
	s.state.set(err)
	if isLoop(err) {
		for range s.batch.index {
			s.count.skip(skipLoop)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", s.d.HostPort(), err)
	}
	return nil
}

// open makes the socket fit the destination's address.
func (s *datagrams) open(ctx context.Context) error {
	if s.life.ended() {
		return errClosed
	}
	to, err := s.lookup(ctx)
	if err != nil {
		return err
	}
	if err := s.d.refused(s.o.Guard, to); err != nil {
		return err
	}
	if s.sock != nil && s.sock.to == to {
		return nil
	}
	s.drop()
	s.sock, err = dialUDP(s.d.From, to)
	if err != nil {
		s.count.trouble(troubleDial)
		s.target.failed(to.Addr())
		return err
	}
	return nil
}

// lookup returns the destination's address.
func (s *datagrams) lookup(ctx context.Context) (netip.AddrPort, error) {
	if to, ok := s.target.known(); ok {
		return to, nil
	}
	ctx, stop := s.life.within(ctx)
	defer stop()
	to, err := s.target.get(ctx)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return to, err
}

// drop closes the socket.
func (s *datagrams) drop() {
	if s.sock != nil {
		s.sock.close()
		s.sock, s.refused = nil, false
	}
}

// send sends the datagrams of the batch.
func (s *datagrams) send(events []trace.Event) error {
	msgs := s.batch.datagrams()
	if err := s.sock.conn.SetWriteDeadline(time.Now().Add(s.o.WriteTimeout)); err != nil {
		return err
	}
	if err := s.hear(); err != nil {
		return err
	}
	sent, bytes := 0, 0
	for at, ignored := 0, 0; at < len(msgs); {
		to := len(msgs)
		if s.refused {
			to = at + 1
		}
		n, err := s.sock.write(msgs[at:to])
		switch {
		case errors.Is(err, syscall.EMSGSIZE):
			s.tooLong(events, s.batch.index[at])
			at++
		case errors.Is(err, errRefused) && s.d.IgnoreRefused && ignored < maxIgnored:
			ignored++ // it was about an earlier datagram; this one has not been sent
			s.count.trouble(troubleRefused)
		case err != nil:
			return s.sendError(err)
		default:
			for _, m := range msgs[at : at+n] {
				bytes += len(m)
			}
			at, sent, ignored = at+n, sent+n, 0
			if err := s.probe(); err != nil {
				return err
			}
		}
	}
	if err := s.hear(); err != nil {
		return err
	}
	s.count.sent.Add(float64(sent))
	s.count.bytes.Add(float64(bytes))
	return nil
}

// maxIgnored is how often one datagram is tried that is refused for another's sake.
const maxIgnored = 10

// hear fails if a refusal has come in, unless it is to be ignored.
func (s *datagrams) hear() error {
	err := s.sock.pending()
	if err == nil {
		return nil
	}
	if s.d.IgnoreRefused && errors.Is(err, errRefused) {
		s.count.trouble(troubleRefused)
		return nil
	}
	return s.sendError(err)
}

// probe waits for the answer to the datagram that was sent to learn whether
// somebody listens again.
func (s *datagrams) probe() error {
	if !s.refused {
		return nil
	}
	if err := s.sock.answer(probeTime); err != nil {
		return s.sendError(err)
	}
	s.refused = false
	return nil
}

// sendError draws the consequences of an error of the socket.
func (s *datagrams) sendError(err error) error {
	kind := troubleWrite
	if errors.Is(err, errRefused) {
		kind = troubleRefused
		s.refused = true
	}
	s.count.trouble(kind)
	s.target.failed(s.sock.to.Addr())
	if kind != troubleRefused {
		s.drop()
	}
	return err
}

// tooLong settles an event that no datagram can carry.
func (s *datagrams) tooLong(events []trace.Event, i int) {
	if s.fallback == nil {
		s.no.add(i, reasonTooLongUDP, syscall.EMSGSIZE)
		return
	}
	s.over = append(s.over, events[i])
	s.overAt = append(s.overAt, i)
}

// writeOver gives the fallback what was too long.
func (s *datagrams) writeOver(ctx context.Context) error {
	if len(s.over) == 0 {
		return nil
	}
	err := s.fallback.Write(ctx, s.over)
	var no trace.Rejected
	if err != nil && !errors.As(err, &no) {
		return fmt.Errorf("fallback: %w", err)
	}
	for _, r := range no {
		r.Index = s.overAt[r.Index]
		s.no.list = append(s.no.list, r) // the fallback has counted it
	}
	s.count.fallback.Add(float64(len(s.over) - len(no)))
	return nil
}

// Check says whether the name of the destination is known, and whether
// somebody listens there as far as we have heard.
func (s *datagrams) Check(ctx context.Context) error {
	if !s.turn.try() {
		return s.state.check()
	}
	defer s.turn.give()
	if s.refused {
		return s.state.check()
	}
	err := s.open(ctx)
	if err == nil {
		err = s.hear()
	}
	s.state.set(err)
	return s.state.check()
}

// Close closes the socket and the fallback.
func (s *datagrams) Close() error {
	s.life.end()
	var err error
	if s.fallback != nil {
		err = s.fallback.Close()
	}
	s.turn <- struct{}{}
	defer s.turn.give()
	s.drop()
	s.target.wait()
	return err
}
