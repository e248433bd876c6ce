package sipgotap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// hepTimeout bounds what one Write waits for a peer that takes nothing.
const hepTimeout = 5 * time.Second

// HEPSink is a sink that sends HEP version 3, to a siptrace tap beside the
// program or to any collector. It connects when there is something to send,
// and again after an error.
//
// An event is safe, as far as the sink can tell, when the kernel has taken it:
// over UDP nobody acknowledges anything, over TCP what is under way when a
// connection breaks may be lost.
type HEPSink struct {
	network, addr string
	auth          []byte // a chunk, or nothing

	mu   sync.Mutex
	conn *hepConn // nil when there is none
	buf  []byte
}

// NewHEPSink returns a sink that sends to hep+udp://HOST:PORT or
// hep+tcp://HOST:PORT. The port is 9060 if there is none; ?auth=KEY is sent
// with every event. It connects to nothing yet. Close it.
func NewHEPSink(address string) (*HEPSink, error) {
	bare, _, _ := strings.Cut(address, "?") // what follows may be a secret
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("hep sink %q is no URL, try hep+udp://127.0.0.1:9060", bare)
	}
	network, ok := strings.CutPrefix(u.Scheme, "hep+")
	switch {
	case !ok || network != "udp" && network != "tcp":
		return nil, fmt.Errorf("hep sink %q: unknown scheme %q, known are hep+tcp, hep+udp", bare, u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("hep sink %q: no host, try %s://127.0.0.1:9060", bare, u.Scheme)
	case u.User != nil || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("hep sink %q has more than a host, a port and options", bare)
	}
	port := u.Port()
	if port == "" {
		port = "9060"
	}
	s := &HEPSink{network: network, addr: net.JoinHostPort(u.Hostname(), port)}
	for name, values := range u.Query() {
		if name != "auth" || len(values) != 1 {
			return nil, fmt.Errorf("hep sink %q: option %q, known is auth, once", bare, name)
		}
		s.auth = hep.AppendChunk(nil, hep.VendorGeneric, hep.ChunkAuthKey, []byte(values[0]))
	}
	return s, nil
}

// Write sends events. Those that HEP cannot carry, and over UDP those that are
// longer than a datagram, come back as [trace.Rejected].
func (s *HEPSink) Write(ctx context.Context, events []trace.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		c, err := dialHEP(ctx, s.network, s.addr)
		if err != nil {
			return fmt.Errorf("send hep: %w", err)
		}
		s.conn = c
	}
	rejected, err := s.send(ctx, events)
	if err != nil {
		_ = s.conn.Close()
		s.conn = nil
		return fmt.Errorf("send hep to %s: %w", s.addr, err)
	}
	if len(rejected) > 0 {
		return rejected
	}
	return nil
}

// send sends events over the connection there is.
func (s *HEPSink) send(ctx context.Context, events []trace.Event) (rejected trace.Rejected, err error) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(hepTimeout))
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	s.buf = s.buf[:0]
	for i := range events {
		if s.buf, err = s.append(s.buf, &events[i]); err != nil {
			rejected = append(rejected, trace.Rejection{Index: i, Reason: "not encodable", Err: err})
			continue
		}
		if s.network != "udp" {
			continue
		}
		_, err := s.conn.Write(s.buf)
		switch {
		case errors.Is(err, syscall.EMSGSIZE):
			rejected = append(rejected, trace.Rejection{Index: i, Reason: "longer than a datagram", Err: err})
		case err != nil:
			return nil, err
		}
		s.buf = s.buf[:0]
	}
	if len(s.buf) > 0 {
		_, err = s.conn.Write(s.buf)
		return rejected, err
	}
	return rejected, nil
}

// append appends e as a packet.
func (s *HEPSink) append(b []byte, e *trace.Event) ([]byte, error) {
	if len(s.auth) > 0 {
		with := *e
		with.Chunks = append(with.Chunks[:len(with.Chunks):len(with.Chunks)], s.auth...)
		e = &with
	}
	return trace.AppendEvent(b, e)
}

// Close closes the connection, if there is one. The sink can be used again.
func (s *HEPSink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}

// hepConn is a connection to a collector. Over TCP it is read, so that the
// next Write knows when the collector has gone.
type hepConn struct {
	net.Conn
	done chan struct{} // nobody reads any more
}

func dialHEP(ctx context.Context, network, addr string) (*hepConn, error) {
	d := net.Dialer{Timeout: hepTimeout}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	h := &hepConn{c, make(chan struct{})}
	if network == "udp" {
		close(h.done)
		return h, nil
	}
	go func() {
		defer close(h.done)
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	return h, nil
}

// Close closes the connection and waits for its reader.
func (h *hepConn) Close() error {
	err := h.Conn.Close()
	<-h.done
	if errors.Is(err, net.ErrClosed) {
		return nil // by the other side
	}
	return err
}
