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

// HEPOptions are what a listener for HEP may be told. The zero value is good.
type HEPOptions struct {
	Auth   string // HEP authentication key that every packet must bring; empty is none
	RcvBuf int    // bytes the kernel should hold for us; 0 is 32 MiB over UDP, the system's choice over TCP

	MaxConns     int           // TCP: connections at a time; 0 is 1024
	FrameTimeout time.Duration // TCP: time for one packet, and for the TLS handshake; 0 is 30 s
}

// HEPUDP is a source of what agents send by HEP over UDP, any version of it.
type HEPUDP struct {
	conn  *net.UDPConn
	recv  *receiver
	in    *intake
	count *counters
	bad   *complaints
}

// ListenHEPUDP opens a UDP socket at addr. An addr without host is every
// address of the machine, IPv4 and IPv6. Close it.
func ListenHEPUDP(addr string, o HEPOptions, reg prometheus.Registerer, log *slog.Logger) (*HEPUDP, error) {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for hep on %s: %w", addr, err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, fmt.Errorf("listen for hep: %w", err)
	}
	s, err := newHEPUDP(conn, o, reg, log)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen for hep on %s: %w", addr, err)
	}
	return s, nil
}

func newHEPUDP(conn *net.UDPConn, o HEPOptions, reg prometheus.Registerer, log *slog.Logger) (*HEPUDP, error) {
	url := "hep+udp://" + conn.LocalAddr().String()
	log = log.With("source", url)
	count, err := newCounters(reg, url)
	if err != nil {
		return nil, err
	}
	recv, err := newReceiver(conn)
	if err != nil {
		return nil, err
	}
	setRcvBuf(conn, o.RcvBuf, log)
	return &HEPUDP{
		conn:  conn,
		recv:  recv,
		in:    newIntake(count, o.Auth),
		count: count,
		bad:   newComplaints(log, "hep packets dropped"),
	}, nil
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
func (s *HEPUDP) Addr() net.Addr { return s.conn.LocalAddr() }

// Close closes the socket and so ends Run.
func (s *HEPUDP) Close() error { return s.conn.Close() }

// Run writes what agents send to sink, one Write for what one read brought,
// until ctx is done or the source is closed. Events that the sink does not
// take are lost, and counted: nobody would send them again.
func (s *HEPUDP) Run(ctx context.Context, sink trace.Sink) error {
	defer s.bad.flush()
	_ = s.conn.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := s.recv.receive()
		if n > 0 {
			s.batch(ctx, sink, n)
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && !isPassing(err):
			return fmt.Errorf("receive hep on %s: %w", s.Addr(), err)
		case err != nil:
			s.bad.add("receive", netip.AddrPort{}, err)
			pause(ctx, minPause)
		}
	}
}

// batch hands on what the last read brought.
func (s *HEPUDP) batch(ctx context.Context, sink trace.Sink, n int) {
	size := 0
	for i := range n {
		b, cut := s.recv.datagram(i)
		size += len(b)
		if cut {
			s.drop(dropTooLong, s.recv.from(i), nil)
			continue
		}
		e, why, err := s.in.add(b)
		if e == nil {
			s.drop(why, s.recv.from(i), err)
			continue
		}
		if e.Time.IsZero() {
			e.Time = s.recv.at(i)
		}
	}
	s.count.packets.Add(float64(n))
	s.count.bytes.Add(float64(size))
	if lost := s.recv.lost(); lost > 0 {
		s.count.dropped[dropKernel].Add(float64(lost))
	}
	events := len(s.in.events)
	if err := s.in.handOn(ctx, sink); err != nil {
		s.count.dropped[dropSink].Add(float64(events))
		s.bad.add(dropSink.String(), netip.AddrPort{}, err)
	}
}

// drop counts a packet that became no event, and speaks of it.
func (s *HEPUDP) drop(why drop, from netip.AddrPort, err error) {
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
