package sipgotap

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// same fails the test unless the tap has traced just what the peers noted,
// each message once.
func same(t *testing.T, tap *Tap, got []seen, peers ...*peer) {
	t.Helper()
	var want []seen
	for _, p := range peers {
		want = append(want, p.notes...)
	}
	compare := func(a, b seen) int { return cmp.Compare(a.String()+a.payload, b.String()+b.payload) }
	slices.SortFunc(got, compare)
	slices.SortFunc(want, compare)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("traced %d messages, want %d:", len(got), len(want))
		for _, s := range got {
			t.Log("got ", s)
		}
		for _, s := range want {
			t.Log("want", s)
		}
	}
	if s := tap.Stats(); s.Faults != 0 || s.GarbageBytes != 0 || s.Dropped != 0 || s.Written != uint64(len(got)) {
		t.Errorf("%+v, want all %d written and nothing else", s, len(got))
	}
}

// settled waits until the tap has seen what the peers noted, and returns it.
func settled(t *testing.T, tap *Tap, peers ...*peer) []seen {
	t.Helper()
	n := 0
	for _, p := range peers {
		n += len(p.notes)
	}
	waitFor(t, fmt.Sprintf("%d messages seen", n), func() bool { return tap.Stats().Seen >= uint64(n) })
	return seenIn(drain(t, tap))
}

// An answerer is a server of sipgo that answers calls.
type answerer struct {
	*sipgo.Server
	calls, acks atomic.Int64
}

// acked waits until every call is acknowledged. For an ACK that it comes to only
// after its sockets are closed sipgo opens another one, and nobody closes that.
func (a *answerer) acked(t *testing.T) {
	t.Helper()
	waitFor(t, "every call acknowledged", func() bool { return a.acks.Load() >= a.calls.Load() })
}

// agent is a user agent of sipgo that answers calls. It ends with the test.
func agent(t *testing.T) *answerer {
	t.Helper()
	ua, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close() })
	srv, err := sipgo.NewServer(ua)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(req *sip.Request, tx sip.ServerTransaction, status int, reason string) {
		if err := tx.Respond(sip.NewResponseFromRequest(req, status, reason, nil)); err != nil {
			t.Errorf("respond %d: %v", status, err)
		}
	}
	a := &answerer{Server: srv}
	srv.OnInvite(func(req *sip.Request, tx sip.ServerTransaction) {
		a.calls.Add(1)
		answer(req, tx, 180, "Ringing")
		answer(req, tx, 200, "OK")
	})
	srv.OnAck(func(*sip.Request, sip.ServerTransaction) { a.acks.Add(1) })
	srv.OnBye(func(req *sip.Request, tx sip.ServerTransaction) { answer(req, tx, 200, "OK") })
	return a
}

// call is what a phone does that calls the agent and hangs up.
func call(t *testing.T, agent *answerer, p *peer, callID string) {
	t.Helper()
	via := []byte("SIP/2.0/UDP 192.0.2.1:5060")
	mine := []byte(fmt.Sprintf("SIP/2.0/%s %s;rport", strings.ToUpper(p.transport.String()), p.local))
	send := p.send
	if p.raw != nil && (p.transport == trace.TCP || p.transport == trace.TLS) {
		send = p.sendCut
		if _, err := p.raw.Write([]byte("\r\n\r\n")); err != nil {
			p.t.Fatal(err)
		}
	}
	send(bytes.Replace(request("INVITE", callID, 1, 200), via, mine, 1))
	p.await("SIP/2.0 200")
	send(bytes.Replace(request("ACK", callID, 1, 0), via, mine, 1))
	send(bytes.Replace(request("BYE", callID, 2, 0), via, mine, 1))
	p.await("SIP/2.0 200")
	agent.acked(t)
}

// serve runs a server until the test ends.
func serve(t *testing.T, socket interface{ Close() error }, run func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- run() }()
	t.Cleanup(func() {
		_ = socket.Close()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
}

// at is a loopback address with the port of a socket.
func at(host string, socket net.Addr) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), addrPort(socket).Port())
}

// listen serves transport on every address of the machine. If wrap is set the
// tap sees the socket itself.
func listen(t *testing.T, tap *Tap, srv *sipgo.Server, transport trace.Transport, wrap bool, config *tls.Config) net.Addr {
	t.Helper()
	if transport == trace.UDP {
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		if wrap {
			c = tap.WrapPacketConn(c)
		}
		serve(t, c, func() error { return srv.ServeUDP(c) })
		return c.LocalAddr()
	}
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	if transport == trace.TLS || transport == trace.WSS {
		l = tls.NewListener(l, config)
	}
	if wrap {
		l = tap.WrapListener(l, transport)
	}
	run := map[trace.Transport]func(net.Listener) error{
		trace.TCP: srv.ServeTCP, trace.TLS: srv.ServeTLS, trace.WS: srv.ServeWS, trace.WSS: srv.ServeWSS,
	}[transport]
	serve(t, l, func() error { return run(l) })
	return l.Addr()
}

func TestTap_seesEveryMessageOfAServerOnce(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	for _, how := range []struct {
		name          string
		wrap, install bool
	}{{"wrapped", true, false}, {"installed", false, true}, {"wrapped and installed", true, true}} {
		for _, transport := range []trace.Transport{trace.UDP, trace.TCP, trace.TLS, trace.WS, trace.WSS} {
			t.Run(how.name+", "+transport.String(), func(t *testing.T) {
				tap := New(Options{})
				if how.install {
					defer tap.Install()()
				}
				srv := agent(t)
				socket := listen(t, tap, srv.Server, transport, how.wrap, serverTLS)
				var peers []*peer
				for i, host := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
					if host == "127.0.0.2" && !how.wrap && transport == trace.UDP {
						continue // nobody tells sipgo's tracer which address a datagram came to
					}
					var p *peer
					if transport == trace.UDP {
						p = udpPeer(t, map[bool]string{false: "127.0.0.1", true: "::1"}[host == "::1"], at(host, socket))
					} else {
						p = dialPeer(t, transport, at(host, socket), clientTLS)
					}
					call(t, srv, p, fmt.Sprintf("call-%d", i))
					peers = append(peers, p)
				}
				same(t, tap, settled(t, tap, peers...), peers...)
				pings := tap.Stats().KeepAlives // sipgo answers no ping that comes with something else
				if stream := transport == trace.TCP || transport == trace.TLS; stream != (pings >= 3 && pings <= 6) {
					t.Errorf("%d pings and pongs, want one to a stream, or two", pings)
				}
			})
		}
	}
}

func TestTap_seesEveryMessageOfAClientOnce(t *testing.T) {
	serverTLS, clientTLS := certificates(t)
	for _, transport := range []trace.Transport{trace.UDP, trace.TCP, trace.TLS, trace.WS, trace.WSS} {
		t.Run(transport.String(), func(t *testing.T) {
			tap := New(Options{})
			defer tap.Install()()
			ua, err := sipgo.NewUA(sipgo.WithUserAgenTLSConfig(clientTLS))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ua.Close() })
			client, err := sipgo.NewClient(ua, sipgo.WithClientHostname("192.0.2.9"))
			if err != nil {
				t.Fatal(err)
			}
			p, addr := phone(t, transport, serverTLS)
			done := make(chan error, 1)
			go func() { done <- dialOut(client, transport, addr) }()
			callee := p()
			invite := callee.receive()
			callee.send(response(invite, "180 Ringing"))
			callee.send(response(invite, "200 OK"))
			callee.receive() // ACK
			callee.send(response(callee.receive(), "200 OK"))
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			same(t, tap, settled(t, tap, callee), callee)
		})
	}
}

// phone is a phone that waits to be called, at addr.
func phone(t *testing.T, transport trace.Transport, config *tls.Config) (answer func() *peer, addr netip.AddrPort) {
	t.Helper()
	if transport == trace.UDP {
		p := udpPeer(t, "127.0.0.1", netip.AddrPort{})
		read := p.read
		p.read = func() ([]byte, netip.AddrPort, error) {
			b, from, err := read()
			p.remote = from
			return b, from, err
		}
		return func() *peer { return p }, p.local
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return func() *peer { return acceptPeer(t, transport, l, config) }, addrPort(l.Addr())
}

// dialOut calls a phone and hangs up.
func dialOut(client *sipgo.Client, transport trace.Transport, to netip.AddrPort) error {
	target := sip.Uri{Scheme: "sip", User: "bob", Host: to.Addr().String(), Port: int(to.Port())}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	invite := sip.NewRequest(sip.INVITE, target)
	invite.SetTransport(strings.ToUpper(transport.String()))
	ok, err := client.Do(ctx, invite)
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	follow := func(method sip.RequestMethod) *sip.Request {
		r := sip.NewRequest(method, target)
		sip.CopyHeaders("From", invite, r)
		sip.CopyHeaders("To", ok, r)
		sip.CopyHeaders("Call-ID", invite, r)
		r.AppendHeader(&sip.CSeqHeader{SeqNo: invite.CSeq().SeqNo, MethodName: method})
		r.SetTransport(strings.ToUpper(transport.String()))
		return r
	}
	if err := client.WriteRequest(follow(sip.ACK)); err != nil {
		return fmt.Errorf("ack: %w", err)
	}
	bye := follow(sip.BYE)
	bye.CSeq().SeqNo++
	if _, err := client.Do(ctx, bye); err != nil {
		return fmt.Errorf("bye: %w", err)
	}
	return nil
}

func TestTap_seesBothEndsOfACallInsideOneProgram(t *testing.T) {
	tap := New(Options{})
	defer tap.Install()()
	srv := agent(t)
	socket := listen(t, tap, srv.Server, trace.TCP, true, nil)
	ua, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close() })
	client, err := sipgo.NewClient(ua)
	if err != nil {
		t.Fatal(err)
	}
	if err := dialOut(client, trace.TCP, at("127.0.0.1", socket)); err != nil {
		t.Fatal(err)
	}
	const messages = 6 // INVITE, 180, 200, ACK, BYE, 200
	waitFor(t, "both ends", func() bool { return tap.Stats().Seen >= 2*messages })
	count := make(map[seen]int)
	for _, s := range seenIn(drain(t, tap)) {
		count[s]++
	}
	if len(count) != 2*messages {
		t.Errorf("%d different events, want %d", len(count), 2*messages)
	}
	for s, n := range count {
		other := s
		other.direction = trace.In + trace.Out - s.direction
		if n != 1 || count[other] != 1 {
			t.Errorf("%v: traced %d times, and %d times at the other end; want 1 and 1", s, n, count[other])
		}
	}
}

func TestTap_aDeadSinkDelaysNoCall(t *testing.T) {
	tap := New(Options{Buffer: minBuffer, Settle: -1, Flush: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- tap.Run(ctx, trace.SinkFunc(func(ctx context.Context, _ []trace.Event) error {
			<-ctx.Done() // for ever
			return ctx.Err()
		}))
	}()
	srv := agent(t)
	socket := listen(t, tap, srv.Server, trace.UDP, true, nil)
	p := udpPeer(t, "127.0.0.1", at("127.0.0.1", socket))
	for i := range 500 {
		call(t, srv, p, fmt.Sprintf("call-%d", i)) // it fails the test if nobody answers
	}
	waitFor(t, "every message seen", func() bool { return tap.Stats().Seen >= uint64(len(p.notes)) })
	s := tap.Stats()
	if s.Seen != uint64(len(p.notes)) || s.Dropped == 0 || s.Waiting+s.Dropped != s.Seen {
		t.Errorf("seen %d, waiting %d, dropped %d; want %d seen, and each of them either waiting or dropped", s.Seen, s.Waiting, s.Dropped, len(p.notes))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
