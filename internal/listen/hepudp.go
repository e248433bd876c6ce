package listen

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// HEPOptions are what a listener for HEP may be told. The zero value is good.
type HEPOptions struct {
	Auth   string // HEP authentication key that every packet must bring; empty is none
	RcvBuf int    // bytes the kernel should hold for us; 0 is 32 MiB over UDP, the system's choice over TCP
	Guard  *Guard // what is not let in; nil lets everything in

	// Trust lets senders mark events with siptrace's own chunks: table,
	// users, destinations, flags, direction, transport. Without it they are
	// left out. It is for senders that may choose where a message is stored
	// and who gets copies of it.
	Trust bool

	MaxConns     int           // TCP: connections at a time; 0 is 1024
	FrameTimeout time.Duration // TCP: time for one packet, and for the TLS handshake; 0 is 30 s
}

// HEPUDP is a source of what agents send by HEP over UDP, any version of it.
type HEPUDP struct {
	*datagrams
	in *intake
}

// ListenHEPUDP opens a UDP socket at addr. An addr without host is every
// address of the machine, IPv4 and IPv6. Close it.
func ListenHEPUDP(addr string, o HEPOptions, reg prometheus.Registerer, log *slog.Logger) (*HEPUDP, error) {
	d, err := openUDP(schemeUDP, addr, "hep", o.RcvBuf, o.Guard, newCounters, reg, log)
	if err != nil {
		return nil, err
	}
	url := schemeUDP + "://" + d.Addr().String()
	m, err := newMarking(o.Trust, url, reg, log.With("source", url))
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("listen for hep on %s: %w", addr, err)
	}
	return &HEPUDP{d, newIntake(d.count, o.Auth, o.Guard, m)}, nil
}

// Run writes what agents send to sink, one Write for what one read brought, or
// more where much of it was compressed, until ctx is done or the source is
// closed. Events that the sink does not take are lost, and counted: nobody
// would send them again.
func (s *HEPUDP) Run(ctx context.Context, sink trace.Sink) error {
	defer s.in.marks.bad.flush()
	return s.run(ctx, func(n int) { s.batch(ctx, sink, n) })
}

// batch hands on what the last read brought.
func (s *HEPUDP) batch(ctx context.Context, sink trace.Sink, n int) {
	s.each(n, func(i int, b []byte) (drop, error) {
		if s.in.full() { // of what was compressed
			s.handOn(ctx, &s.in.batch, sink)
			s.in.shrink()
		}
		e, why, err := s.in.add(b)
		if e != nil && e.Time.IsZero() && !s.in.stamp(e, s.recv.at(i)) {
			why = dropLoop
		}
		return why, err
	})
	s.handOn(ctx, &s.in.batch, sink)
}
