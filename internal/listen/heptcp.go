package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	defaultMaxConns     = 1024
	defaultFrameTimeout = 30 * time.Second

	// An agent may be silent for hours. The kernel finds out about one that
	// is gone within two minutes.
	keepAliveIdle     = 60 * time.Second
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 4

	maxPause = time.Second // after trouble with accepting
)

// HEPTCP is a source of what agents send by HEP3 over TCP or TLS.
type HEPTCP struct {
	ln    net.Listener
	tls   *tls.Config // nil is TCP
	o     HEPOptions
	count *counters
	conns *connCounters
	bad   *complaints
	marks *marking
	log   *slog.Logger

	repeats repeats // of all connections
}

// ListenHEPTCP opens a TCP socket at addr. An addr without host is every
// address of the machine, IPv4 and IPv6. Close it.
func ListenHEPTCP(addr string, o HEPOptions, reg prometheus.Registerer, log *slog.Logger) (*HEPTCP, error) {
	return listenStream("hep+tcp", addr, nil, o, reg, log)
}

// ListenHEPTLS is ListenHEPTCP with TLS. The files are read again when they
// change. Close it.
func ListenHEPTLS(addr string, files TLSFiles, o HEPOptions, reg prometheus.Registerer, log *slog.Logger) (*HEPTCP, error) {
	r, err := newReloader(files, log)
	if err != nil {
		return nil, fmt.Errorf("listen for hep on %s: %w", addr, err)
	}
	return listenStream("hep+tls", addr, r.base(), o, reg, log)
}

func listenStream(scheme, addr string, conf *tls.Config, o HEPOptions, reg prometheus.Registerer, log *slog.Logger) (*HEPTCP, error) {
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for hep: %w", err)
	}
	if o.MaxConns == 0 {
		o.MaxConns = defaultMaxConns
	}
	if o.FrameTimeout == 0 {
		o.FrameTimeout = defaultFrameTimeout
	}
	url := scheme + "://" + ln.Addr().String()
	log = log.With("source", url)
	s := &HEPTCP{ln: ln, tls: conf, o: o, bad: newComplaints(log, "hep stream trouble"), log: log}
	if s.count, err = newCounters(reg, url); err == nil {
		s.conns, err = newConnCounters(reg, url)
	}
	if err == nil {
		s.marks, err = newMarking(o.Trust, url, reg, log)
	}
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("listen for hep on %s: %w", addr, err)
	}
	log.Info("listening", "conns", o.MaxConns)
	return s, nil
}

// Addr is the address of the socket.
func (s *HEPTCP) Addr() net.Addr { return s.ln.Addr() }

// Close closes the socket and so ends Run.
func (s *HEPTCP) Close() error {
	if err := s.ln.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // Run was here before
}

// Run writes what agents send to sink, one Write at a time, each what one read
// of one connection brought, until ctx is done or the source is closed. It
// then closes the connections and waits for them. Events that the sink does
// not take are lost, and counted: nobody would send them again.
func (s *HEPTCP) Run(ctx context.Context, sink trace.Sink) error {
	defer s.bad.flush()
	defer s.marks.bad.flush()
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.ln.Close() })
	defer stop()

	sink = &oneAtATime{sink: sink}
	places := make(chan struct{}, s.o.MaxConns) // one for each connection
	for {
		conn := s.accept(ctx)
		if conn == nil {
			return nil
		}
		if s.o.Guard.ignores(peer(conn).Addr()) {
			s.conns.refused.Inc() // as was asked for: no complaint
			_ = conn.Close()
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			s.refuse(conn)
			continue
		}
		open.Go(func() {
			defer func() { <-places }()
			s.serve(ctx, conn, sink)
		})
	}
}

// accept waits for a connection. It is nil when the source is closed. Trouble,
// such as no more file descriptors, passes: it waits and tries again.
func (s *HEPTCP) accept(ctx context.Context) net.Conn {
	for wait := minPause; ; wait = min(2*wait, maxPause) {
		conn, err := s.ln.Accept()
		switch {
		case err == nil:
			s.tune(conn)
			return conn
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		}
		s.bad.add("accept", netip.AddrPort{}, err)
		pause(ctx, wait)
	}
}

// tune sets the receive buffer of a connection. One that is not as large as
// was asked for is no harm: TCP has the sender wait.
func (s *HEPTCP) tune(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok && s.o.RcvBuf > 0 {
		_ = c.SetReadBuffer(s.o.RcvBuf)
	}
}

// refuse closes a connection that is one too many.
func (s *HEPTCP) refuse(conn net.Conn) {
	s.conns.refused.Inc()
	s.bad.add("too many connections", peer(conn), fmt.Errorf("%d are open already", s.o.MaxConns))
	_ = conn.Close()
}

// peer is who is at the other end of conn.
func peer(conn net.Conn) netip.AddrPort {
	a, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// oneAtATime lets several goroutines write to a sink in turn.
type oneAtATime struct {
	mu   sync.Mutex
	sink trace.Sink
}

func (s *oneAtATime) Write(ctx context.Context, events []trace.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sink.Write(ctx, events)
}
