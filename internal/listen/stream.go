package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// serve takes what one agent sends until either side ends it.
func (s *HEPTCP) serve(ctx context.Context, tcp net.Conn, sink trace.Sink) {
	conn, from := tcp, peer(tcp)
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() }) // conn may become another
	defer stop()
	if s.tls != nil {
		secure := tls.Server(tcp, s.tls)
		if err := s.handshake(ctx, secure); err != nil {
			s.conns.refused.Inc()
			if ctx.Err() == nil {
				s.bad.add("handshake", from, err)
			}
			return
		}
		conn = secure
	}
	s.conns.accepted.Inc()
	s.conns.open.Inc()
	defer s.conns.open.Dec()
	s.log.Debug("agent connected", "from", from)

	st := &stream{ctx: ctx, conn: conn, from: from, sink: sink, in: newIntake(s.count, s.o.Auth, s.o.Guard, s.marks), s: s}
	st.in.repeats = &s.repeats // one memory for all connections
	err := st.run()
	s.log.Debug("agent gone", "from", from, "err", err)
	if why := endOf(err); why != 0 && ctx.Err() == nil {
		st.drop(why, err)
	}
}

func (s *HEPTCP) handshake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.FrameTimeout)
	defer cancel()
	return conn.HandshakeContext(ctx)
}

// endOf is what was lost by the way a stream ended; 0 is nothing.
func endOf(err error) drop {
	switch {
	case errors.Is(err, hep.ErrSync):
		return dropStream
	case errors.Is(err, io.ErrUnexpectedEOF):
		return dropTruncated
	case errors.Is(err, os.ErrDeadlineExceeded):
		return dropTimeout
	}
	return 0
}

// stream is the packets of one connection.
type stream struct {
	ctx  context.Context
	conn net.Conn
	from netip.AddrPort
	sink trace.Sink
	in   *intake
	s    *HEPTCP
	got  int64 // bytes off the connection
}

// run takes packet after packet off the stream, until it ends or goes wrong.
func (st *stream) run() error {
	defer st.handOn()
	r := hep.NewReader(st, hep.SkipFiller(), hep.FrameDeadline(st.conn, st.s.o.FrameTimeout))
	for {
		b, err := r.Next()
		switch {
		case err == nil:
		case err != io.EOF && endOf(err) == 0 && st.got > r.Offset():
			return fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err) // broken within a packet
		default:
			return err
		}
		st.packet(b)
		if st.in.full() {
			st.handOn()
		}
	}
}

// Read reads the connection for the packet reader. Before it waits for more,
// it hands on what there is, and lets go of what only large packets need.
func (st *stream) Read(b []byte) (int, error) {
	st.handOn()
	st.in.shrink()
	n, err := st.conn.Read(b)
	st.got += int64(n)
	st.s.count.bytes.Add(float64(n))
	return n, err
}

// packet adds one packet, which is copied, to the batch. One that is bad
// costs nothing but itself.
func (st *stream) packet(b []byte) {
	st.s.count.packets.Inc()
	e, why, err := st.in.add(st.in.keep(b))
	if e == nil {
		st.drop(why, err)
		return
	}
	if e.Time.IsZero() && !st.in.stamp(e, time.Now()) {
		st.drop(dropLoop, nil)
	}
}

// handOn gives the batch to the sink.
func (st *stream) handOn() {
	n := len(st.in.events)
	if err := st.in.handOn(st.ctx, st.sink); err != nil {
		st.s.count.dropped[dropSink].Add(float64(n))
		st.s.bad.add(dropSink.String(), netip.AddrPort{}, err)
	}
}

// drop counts something that became no event, and speaks of it.
func (st *stream) drop(why drop, err error) {
	st.s.count.dropped[why].Inc()
	st.s.bad.add(why.String(), st.from, err)
}
