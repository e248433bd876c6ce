package sipgotap

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A seen is a message as one end saw it, and as an event must tell it.
type seen struct {
	transport trace.Transport
	direction trace.Direction // for the program that is traced
	src, dst  netip.AddrPort
	payload   string
}

func (s seen) String() string {
	line, _, _ := bytes.Cut([]byte(s.payload), []byte("\r\n"))
	return fmt.Sprintf("%v %v %v → %v %s", s.transport, s.direction, s.src, s.dst, line)
}

// seenIn is what events tell.
func seenIn(events []trace.Event) []seen {
	var list []seen
	for _, e := range events {
		list = append(list, seen{e.Transport, e.Direction, e.Src, e.Dst, string(e.Payload)})
	}
	return list
}

// A peer is a SIP phone that is not built on sipgo. It notes what it sends
// and receives.
type peer struct {
	t         testing.TB
	transport trace.Transport
	local     netip.AddrPort
	remote    netip.AddrPort // where it sends
	write     func(b []byte) error
	read      func() ([]byte, netip.AddrPort, error) // one message, and its sender
	raw       net.Conn                               // of a stream
	notes     []seen
}

// send sends a message.
func (p *peer) send(b []byte) {
	p.t.Helper()
	if err := p.write(b); err != nil {
		p.t.Fatal(err)
	}
	p.note(trace.In, p.local, p.remote, b)
}

// sendCut sends a message over a stream byte by byte.
func (p *peer) sendCut(b []byte) {
	p.t.Helper()
	for i := range b {
		if _, err := p.raw.Write(b[i : i+1]); err != nil {
			p.t.Fatal(err)
		}
	}
	p.note(trace.In, p.local, p.remote, b)
}

// receive returns the next message.
func (p *peer) receive() []byte {
	p.t.Helper()
	b, from, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	p.note(trace.Out, from, p.local, b)
	return b
}

// await receives until a message begins like that.
func (p *peer) await(start string) []byte {
	p.t.Helper()
	for {
		if b := p.receive(); bytes.HasPrefix(b, []byte(start)) {
			return b
		}
	}
}

func (p *peer) note(way trace.Direction, src, dst netip.AddrPort, b []byte) {
	p.notes = append(p.notes, seen{p.transport, way, src, dst, string(b)})
}

// udpPeer is a phone at a UDP address. It takes datagrams from anyone.
func udpPeer(t testing.TB, local string, remote netip.AddrPort) *peer {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(local), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p := &peer{t: t, transport: trace.UDP, local: addrPort(c.LocalAddr()), remote: remote}
	p.write = func(b []byte) error {
		_, err := c.WriteToUDPAddrPort(b, p.remote)
		return err
	}
	p.read = func() ([]byte, netip.AddrPort, error) {
		b := make([]byte, 65535)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, from, err := c.ReadFromUDPAddrPort(b)
		return b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	return p
}

// streamPeer is a phone on a connection. For WebSockets the handshake is over.
func streamPeer(t testing.TB, c net.Conn, transport trace.Transport, client bool) *peer {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	p := &peer{t: t, transport: transport, local: addrPort(c.LocalAddr()), remote: addrPort(c.RemoteAddr()), raw: c}
	if transport == trace.WS || transport == trace.WSS {
		state := ws.StateServerSide
		if client {
			state = ws.StateClientSide
		}
		p.write = func(b []byte) error { return wsutil.WriteMessage(c, state, ws.OpText, b) }
		p.read = func() ([]byte, netip.AddrPort, error) {
			b, _, err := wsutil.ReadData(c, state)
			return b, p.remote, err
		}
		return p
	}
	r := bufio.NewReader(c)
	p.write = func(b []byte) error { _, err := c.Write(b); return err }
	p.read = func() ([]byte, netip.AddrPort, error) {
		b, err := readMessage(r)
		return b, p.remote, err
	}
	return p
}

// readMessage reads a SIP message off a stream. Pongs are not messages.
func readMessage(r *bufio.Reader) ([]byte, error) {
	for {
		b, err := r.Peek(1)
		if err != nil {
			return nil, err
		}
		if b[0] != '\r' && b[0] != '\n' {
			break
		}
		_, _ = r.Discard(1)
	}
	var raw bytes.Buffer
	for {
		line, err := r.ReadBytes('\n')
		raw.Write(line)
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
	}
	_, header, _ := bytes.Cut(raw.Bytes(), []byte("\r\n"))
	fields, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(header))).ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(fields.Get("Content-Length"))
	if err != nil {
		return nil, err
	}
	_, err = io.CopyN(&raw, r, int64(n))
	return raw.Bytes(), err
}

// dialPeer connects a phone to a server.
func dialPeer(t testing.TB, transport trace.Transport, to netip.AddrPort, tlsConfig *tls.Config) *peer {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if transport == trace.TLS || transport == trace.WSS {
		c = tls.Client(c, tlsConfig)
	}
	if transport == trace.WS || transport == trace.WSS {
		d := ws.Dialer{Protocols: []string{"sip"}}
		if _, _, err := d.Upgrade(c, &url.URL{Scheme: "ws", Host: to.String()}); err != nil {
			t.Fatal(err)
		}
	}
	return streamPeer(t, c, transport, true)
}

// acceptPeer waits for a connection to a phone.
func acceptPeer(t testing.TB, transport trace.Transport, l net.Listener, tlsConfig *tls.Config) *peer {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if transport == trace.TLS || transport == trace.WSS {
		c = tls.Server(c, tlsConfig)
	}
	if transport == trace.WS || transport == trace.WSS {
		if _, err := ws.Upgrade(c); err != nil {
			t.Fatal(err)
		}
	}
	return streamPeer(t, c, transport, false)
}

// certificates are a server's and a client's side of TLS on loopback.
func certificates(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}
