package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
)

// timerC is how long an INVITE may stay without a final response (RFC 3261,
// 16.6 step 11).
const timerC = 3 * time.Minute

// readBuffer is what the kernel should hold for us while we are busy.
const readBuffer = 4 << 20

// proxy is a stateful SIP proxy (RFC 3261, section 16) with one next hop: no
// forking, no name servers, the transport of a request is that of its next leg.
//
// What is sipgo's is not counted here: the answers to CANCEL, the ACK to a
// failed INVITE, retransmissions.
type proxy struct {
	opts   options
	addr   netip.AddrPort
	ua     *sipgo.UserAgent
	client *sipgo.Client
	server *sipgo.Server
	udp    net.PacketConn
	tcp    net.Listener
	count  *counters
	log    *slog.Logger
	stop   chan struct{} // closed when the proxy ends
}

// newProxy opens the sockets of a proxy. Without a collector they are not
// traced.
func newProxy(o options, tap *sipgotap.Tap, count *counters, log *slog.Logger) (p *proxy, err error) {
	p = &proxy{opts: o, count: count, log: log, stop: make(chan struct{})}
	if p.udp, err = net.ListenPacket("udp", o.listen); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if udp, ok := p.udp.(*net.UDPConn); ok {
		_ = udp.SetReadBuffer(readBuffer) // the system may allow less
	}
	p.addr = p.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	if p.tcp, err = net.Listen("tcp", p.addr.String()); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), p.udp.Close())
	}
	if o.hep != "" {
		p.udp, p.tcp = tap.WrapPacketConn(p.udp), tap.WrapListener(p.tcp, trace.TCP)
	}
	if err := p.agent(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// agent makes the user agent, which has no sockets yet.
func (p *proxy) agent() (err error) {
	stray := sip.WithTransactionLayerUnhandledResponseHandler(p.stray)
	if p.ua, err = sipgo.NewUA(sipgo.WithUserAgentTransactionLayerOptions(stray)); err != nil {
		return err
	}
	if p.client, err = sipgo.NewClient(p.ua); err != nil {
		return err
	}
	if p.server, err = sipgo.NewServer(p.ua); err != nil {
		return err
	}
	p.server.OnAck(p.ack)
	p.server.OnCancel(p.lateCancel)
	p.server.OnNoRoute(p.relay)
	return nil
}

// serve serves until ctx is done, and closes everything.
func (p *proxy) serve(ctx context.Context) error {
	p.log.Info("started", "listen", p.addr, "to", p.opts.to, "hep", p.opts.hep != "")
	ended := make(chan error, 2) // one for each of the two
	var group sync.WaitGroup
	group.Go(func() { ended <- p.server.ServeUDP(p.udp) })
	group.Go(func() { ended <- p.server.ServeTCP(p.tcp) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended: // sipgo has said why, in the log
		err = errors.Join(errors.New("a socket has failed"), err)
	}
	close(p.stop)
	err = errors.Join(err, p.close())
	group.Wait()
	return err
}

// close closes what newProxy has opened.
func (p *proxy) close() error {
	err := errors.Join(p.udp.Close(), p.tcp.Close())
	if p.ua == nil {
		return err
	}
	if cerr := p.ua.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}

// relay is the life of a request: out to the next hop, and responses back.
func (p *proxy) relay(req *sip.Request, tx sip.ServerTransaction) {
	p.count.request("in", req)
	next, err := p.forward(req)
	if err != nil {
		p.refuse(req, tx, err)
		return
	}
	if req.IsInvite() {
		p.respond(tx, sip.NewResponseFromRequest(req, sip.StatusTrying, "Trying", nil))
	}
	out, err := p.client.TransactionRequest(context.Background(), next, asIs)
	if err != nil {
		p.log.Warn("next hop not reached", "err", err)
		p.refuse(req, tx, &refusal{sip.StatusServiceUnavailable, "Service Unavailable"})
		return
	}
	p.count.request("out", next)
	out.OnRetransmission(func(res *sip.Response) {
		p.count.response("in", res)
		p.back(tx, res)
	})
	p.await(&leg{req: req, tx: tx, next: next, out: out})
}

// leg is a request between its two transactions.
type leg struct {
	req  *sip.Request
	tx   sip.ServerTransaction
	next *sip.Request // what was sent on
	out  sip.ClientTransaction

	ringing   bool // a provisional response has come, so that CANCEL is allowed
	cancelled bool // the caller has given up
	sent      bool // and the next hop has been told
}

// await relays responses until the final one.
func (p *proxy) await(l *leg) {
	gaveUp := make(chan struct{})
	giveUp := sync.OnceFunc(func() { close(gaveUp) })
	if !l.tx.OnCancel(func(*sip.Request) { giveUp() }) {
		l.cancelled = errors.Is(l.tx.Err(), sip.ErrTransactionCanceled)
	}
	tooLong := time.NewTimer(timerC)
	defer tooLong.Stop()
	for {
		select {
		case res := <-l.out.Responses():
			if final := p.response(l, res); final {
				return
			}
			tooLong.Reset(timerC)
		case <-l.out.Done():
			if !l.cancelled {
				p.refuse(l.req, l.tx, &refusal{sip.StatusRequestTimeout, "Request Timeout"})
			}
			return
		case <-gaveUp:
			l.cancelled, gaveUp = true, nil
		case <-tooLong.C:
			l.cancelled = true
			p.refuse(l.req, l.tx, &refusal{sip.StatusRequestTimeout, "Request Timeout"})
		case <-p.stop:
			return
		}
		if l.cancelled && l.ringing && !l.sent {
			l.sent = true
			p.cancel(l.next)
		}
	}
}

// response takes a response of the next hop, and says whether it is the last.
func (p *proxy) response(l *leg, res *sip.Response) (final bool) {
	p.count.response("in", res)
	l.ringing = true
	switch {
	case res.StatusCode == sip.StatusTrying: // for this hop alone
	case !l.cancelled:
		p.back(l.tx, res)
	case res.IsSuccess(): // it has crossed the CANCEL, and the caller must know
		p.pass(res)
	}
	return !res.IsProvisional()
}

// back sends a response to where the request came from.
func (p *proxy) back(tx sip.ServerTransaction, res *sip.Response) { p.respond(tx, withoutOurVia(res)) }

// withoutOurVia is a response as the hop before us has to get it.
func withoutOurVia(res *sip.Response) *sip.Response {
	r := res.Clone()
	r.RemoveHeader("Via")
	r.SetDestination("") // so that the next Via says
	return r
}

func (p *proxy) respond(tx sip.ServerTransaction, res *sip.Response) {
	if err := tx.Respond(res); err != nil {
		p.log.Debug("response not sent", "err", err)
		return
	}
	p.count.response("out", res)
}

// refuse answers a request that goes no further.
func (p *proxy) refuse(req *sip.Request, tx sip.ServerTransaction, err error) {
	why := &refusal{sip.StatusInternalServerError, "Server Internal Error"}
	errors.As(err, &why)
	p.respond(tx, sip.NewResponseFromRequest(req, why.status, why.reason, nil))
}

// cancel gives up a request that was sent on. Its answer is of no interest.
func (p *proxy) cancel(next *sip.Request) {
	tx, err := p.client.TransactionRequest(context.Background(), cancelOf(next), asIs)
	if err != nil {
		p.log.Warn("not cancelled", "err", err)
		return
	}
	p.count.add("out CANCEL")
	select {
	case res := <-tx.Responses():
		p.count.response("in", res)
	case <-tx.Done():
	case <-p.stop:
	}
}

// lateCancel answers a CANCEL for which there is nothing to cancel.
func (p *proxy) lateCancel(req *sip.Request, tx sip.ServerTransaction) {
	p.count.request("in", req)
	p.refuse(req, tx, &refusal{sip.StatusCallTransactionDoesNotExists, "Call/Transaction Does Not Exist"})
}

// ack sends on the ACK to a 2xx, which is a transaction of nobody's.
func (p *proxy) ack(req *sip.Request, _ sip.ServerTransaction) {
	p.count.request("in", req)
	next, err := p.forward(req)
	if err != nil {
		return // there is no answer to an ACK
	}
	if err := p.client.WriteRequest(next, asIs); err != nil {
		p.log.Warn("ack not sent", "err", err)
		return
	}
	p.count.request("out", next)
}

// stray takes a response that no transaction waits for, as a 2xx that is sent
// again. It is relayed by its Via alone.
func (p *proxy) stray(res *sip.Response) {
	p.count.response("in", res)
	if via := res.Via(); via != nil && via.Host == p.addr.Addr().String() && via.Port == int(p.addr.Port()) {
		p.pass(res)
	}
}

// pass relays a response without any transaction.
func (p *proxy) pass(res *sip.Response) {
	r := withoutOurVia(res)
	if r.Via() == nil {
		return // it was for us
	}
	if err := p.server.WriteResponse(r); err != nil {
		p.log.Debug("response not passed", "err", err)
		return
	}
	p.count.response("out", r)
}
