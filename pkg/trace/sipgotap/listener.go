package sipgotap

import (
	"net"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// WrapListener returns a listener whose connections are traced as what
// transport says: [trace.TCP], [trace.TLS], [trace.WS] or [trace.WSS]. It goes
// over TLS and under WebSocket, which is what sipgo's ServeTLS, ServeWS and
// ServeWSS are given anyway:
//
//	l, err := tls.Listen("tcp", ":5061", config)
//	srv.ServeTLS(tap.WrapListener(l, trace.TLS))
func (t *Tap) WrapListener(l net.Listener, transport trace.Transport) net.Listener {
	return &listener{Listener: l, tap: t, transport: knownTransport(transport)}
}

type listener struct {
	net.Listener
	tap       *Tap
	transport *transport
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.tap.wrapConn(c, l.transport), nil
}

// conn is a connection that is traced.
type conn struct {
	net.Conn
	in, out *flow
	forget  func()
}

func (t *Tap) wrapConn(c net.Conn, transport *transport) *conn {
	in := leg{
		transport: transport,
		local:     addrPort(c.LocalAddr()),
		remote:    addrPort(c.RemoteAddr()),
		direction: trace.In,
	}
	return &conn{
		Conn:   c,
		in:     newFlow(t, in),
		out:    newFlow(t, in.other()),
		forget: t.wrapped.add(socket{c.LocalAddr().String(), c.RemoteAddr().String()}),
	}
}

// Read reads and traces.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.in.saw(time.Now(), b[:n])
	}
	return n, err
}

// Write writes and traces what was written. The time is that before, so that
// an answer is never older than what it answers.
func (c *conn) Write(b []byte) (int, error) {
	at := time.Now()
	n, err := c.Conn.Write(b)
	if n > 0 {
		c.out.saw(at, b[:n])
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.forget()
	return err
}

// NetConn returns the connection that is traced.
func (c *conn) NetConn() net.Conn { return c.Conn }
