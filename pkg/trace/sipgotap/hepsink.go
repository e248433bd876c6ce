package sipgotap

import (
	"cmp"
	"context"
	"crypto/tls"
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
	network, addr string    // "udp", "tcp", "tls"
	auth          []byte    // a chunk, or nothing
	tls           *tlsFiles // of "tls"

	mu   sync.Mutex
	conn *hepConn // nil when there is none
	buf  []byte
}

// NewHEPSink returns a sink that sends to hep+udp://HOST:PORT, hep+tcp://HOST:PORT
// or hep+tls://HOST:PORT. The port is 9060 if there is none, 9061 for TLS.
//
//	auth=KEY            is sent with every event
//	ca=FILE             TLS: whose certificates are good, instead of the system's
//	cert=FILE key=FILE  TLS: our own certificate, for who asks for one
//	server-name=NAME    TLS: what the certificate says, if it is not HOST
//
// It connects to nothing yet. Close it.
func NewHEPSink(address string) (*HEPSink, error) {
	bare, _, _ := strings.Cut(address, "?") // what follows may be a secret
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("hep sink %q is no URL, try hep+udp://127.0.0.1:9060", bare)
	}
	network, ok := strings.CutPrefix(u.Scheme, "hep+")
	port, known := map[string]string{"udp": "9060", "tcp": "9060", "tls": "9061"}[network]
	switch {
	case !ok || !known:
		return nil, fmt.Errorf("hep sink %q: unknown scheme %q, known are hep+tcp, hep+tls, hep+udp", bare, u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("hep sink %q: no host, try %s://127.0.0.1:%s", bare, u.Scheme, port)
	case u.User != nil || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("hep sink %q has more than a host, a port and options", bare)
	}
	s := &HEPSink{network: network, addr: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))}
	if network == "tls" {
		s.tls = &tlsFiles{serverName: u.Hostname()}
	}
	if err := s.setAll(u.RawQuery); err != nil {
		return nil, fmt.Errorf("hep sink %q: %w", bare, err)
	}
	return s, nil
}

// setAll sets the options of a query. An error tells no values.
func (s *HEPSink) setAll(query string) error {
	options, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("options are not of the form name=value&name=value")
	}
	for name, values := range options {
		if len(values) != 1 || values[0] == "" {
			return fmt.Errorf("option %q needs one value", name)
		}
		switch {
		case name == "auth":
			s.auth = hep.AppendChunk(nil, hep.VendorGeneric, hep.ChunkAuthKey, []byte(values[0]))
		case s.tls == nil:
			return fmt.Errorf("unknown option %q, known is auth", name)
		case !s.tls.set(name, values[0]):
			return fmt.Errorf("unknown option %q, known are auth, ca, cert, key, server-name", name)
		}
	}
	if s.tls == nil {
		return nil
	}
	_, err = s.tls.config()
	return err
}

// Write sends events. Those that HEP cannot carry, and over UDP those that are
// longer than a datagram, come back as [trace.Rejected].
func (s *HEPSink) Write(ctx context.Context, events []trace.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		c, err := s.dial(ctx)
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
	defer s.conn.hurry(ctx)()
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

var errGone = errors.New("the collector has closed the connection")

// hepConn is a connection to a collector. A stream is read, so that the next
// Write knows when the collector has gone.
type hepConn struct {
	net.Conn
	done chan struct{} // nobody reads any more
	gone error         // why; once done is closed
}

// dial connects to the collector.
func (s *HEPSink) dial(ctx context.Context) (*hepConn, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	h := &hepConn{Conn: c, done: make(chan struct{})}
	if s.network == "udp" {
		close(h.done)
		return h, nil
	}
	go func() {
		defer close(h.done)
		if _, h.gone = io.Copy(io.Discard, c); h.gone == nil {
			h.gone = errGone
		}
		_ = c.Close()
	}()
	return h, nil
}

func (s *HEPSink) connect(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: hepTimeout}
	if s.tls == nil {
		return d.DialContext(ctx, s.network, s.addr)
	}
	config, err := s.tls.config()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, hepTimeout) // for the handshake, too
	defer cancel()
	secure := tls.Dialer{NetDialer: &d, Config: config}
	return secure.DialContext(ctx, "tcp", s.addr)
}

// Write writes to the collector. If it has gone, the error says why.
func (h *hepConn) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	if errors.Is(err, net.ErrClosed) { // by the reader, who is about to end
		<-h.done
		err = cmp.Or(h.gone, err)
	}
	return n, err
}

// hurry bounds what is written until the func it returns has been called, by
// hepTimeout and by ctx. Behind that nothing touches the connection any more.
func (h *hepConn) hurry(ctx context.Context) (done func()) {
	_ = h.SetWriteDeadline(time.Now().Add(hepTimeout))
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		_ = h.SetWriteDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-hurried
		}
	}
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
