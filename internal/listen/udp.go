package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	// batchSize is the most datagrams one read takes, and the most events
	// one write hands on.
	batchSize = 64

	// datagramSize holds any UDP datagram.
	datagramSize = 65535

	// defaultRcvBuf is half a second of 60,000 messages a second.
	defaultRcvBuf = 32 << 20

	// minPause is how long to wait after trouble that passes.
	minPause = 5 * time.Millisecond
)

// datagrams is a UDP socket and what its sources have in common.
type datagrams struct {
	what  string // "hep"
	conn  *net.UDPConn
	recv  *receiver
	guard *Guard
	count *counters
	bad   *complaints
}

// A newCount registers the metrics of the source at a URL.
type newCount func(reg prometheus.Registerer, url string) (*counters, error)

// openUDP opens a UDP socket at addr. An addr without host is every address of
// the machine, IPv4 and IPv6.
func openUDP(scheme, addr, what string, rcvBuf int, guard *Guard, counts newCount, reg prometheus.Registerer, log *slog.Logger) (*datagrams, error) {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", what, addr, err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", what, err)
	}
	url := scheme + "://" + conn.LocalAddr().String()
	log = log.With("source", url)
	d := &datagrams{what: what, conn: conn, guard: guard, bad: newComplaints(log, what+" packets dropped")}
	if d.count, err = counts(reg, url); err == nil {
		d.recv, err = newReceiver(conn)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen for %s on %s: %w", what, addr, err)
	}
	setRcvBuf(conn, rcvBuf, log)
	return d, nil
}

// setRcvBuf asks the kernel to hold size bytes for conn, and says what it got:
// it is what a burst must fit into.
func setRcvBuf(conn *net.UDPConn, size int, log *slog.Logger) {
	if size == 0 {
		size = defaultRcvBuf
	}
	got, err := growRcvBuf(conn, size)
	switch {
	case err != nil:
		log.Warn("receive buffer not set", "want", size, "err", err)
	case got < size:
		log.Warn("receive buffer is smaller than wanted", "want", size, "got", got,
			"try", fmt.Sprintf("sysctl -w net.core.rmem_max=%d, or grant CAP_NET_ADMIN", size))
	}
	log.Info("listening", "rcvbuf", got)
}

// Addr is the address of the socket.
func (s *datagrams) Addr() net.Addr { return s.conn.LocalAddr() }

// Close closes the socket and so ends Run.
func (s *datagrams) Close() error { return s.conn.Close() }

// run calls take with the number of datagrams that each read brought, until
// ctx is done or the socket is closed.
func (s *datagrams) run(ctx context.Context, take func(n int)) error {
	defer s.bad.flush()
	_ = s.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := s.recv.receive()
		if n > 0 {
			take(n)
		}
		switch {
		case ctx.Err() != nil:
			s.rest(take)
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && !isPassing(err):
			return fmt.Errorf("receive %s on %s: %w", s.what, s.Addr(), err)
		case err != nil:
			s.bad.add("receive", netip.AddrPort{}, err)
			pause(ctx, minPause)
		}
	}
}

// restTime is for datagrams that have the time when they were read: the kernel
// begins to stamp them a moment after the first socket has asked for it.
const restTime = 250 * time.Millisecond

// rest takes what had come before the source was to end, and waits for nothing.
func (s *datagrams) rest(take func(n int)) {
	for end := time.Now().Add(restTime); ; {
		n := s.recv.poll()
		if n == 0 {
			return
		}
		take(n)
		if s.recv.at(n - 1).After(end) {
			return // the rest came later
		}
	}
}

// each calls add with every datagram of the last read that is to be looked at,
// and counts them all. The drop that add returns is 0 for an event.
func (s *datagrams) each(n int, add func(i int, b []byte) (drop, error)) {
	size, watches := 0, s.guard.watches()
	for i := range n {
		b, cut := s.recv.datagram(i)
		size += len(b)
		switch {
		case watches && s.guard.ignores(s.recv.from(i).Addr()):
			s.count.dropped[dropIgnored].Inc() // as was asked for: no complaint
		case cut:
			s.drop(dropTooLong, s.recv.from(i), nil)
		default:
			if why, err := add(i, b); why != 0 {
				s.drop(why, s.recv.from(i), err)
			}
		}
	}
	s.count.packets.Add(float64(n))
	s.count.bytes.Add(float64(size))
	if lost := s.recv.lost(); lost > 0 {
		s.count.dropped[dropKernel].Add(float64(lost))
	}
}

// handOn gives a batch to the sink. Events that it does not take are lost, and
// counted: nobody would send them again.
func (s *datagrams) handOn(ctx context.Context, b *batch, sink trace.Sink) {
	events := len(b.events)
	if err := b.handOn(ctx, sink); err != nil {
		s.count.dropped[dropSink].Add(float64(events))
		s.bad.add(dropSink.String(), netip.AddrPort{}, err)
	}
}

// drop counts a packet that became no event, and speaks of it.
func (s *datagrams) drop(why drop, from netip.AddrPort, err error) {
	s.count.dropped[why].Inc()
	s.bad.add(why.String(), from, err)
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
