package main

import (
	"net"
	"strconv"

	"github.com/emiago/sipgo/sip"
)

// A refusal is why a request goes no further.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return strconv.Itoa(r.status) + " " + r.reason }

// forward is a request as it goes to the next hop (RFC 3261, 16.3 to 16.6). It
// leaves req as it is, for sipgo's transaction still needs it.
func (p *proxy) forward(req *sip.Request) (*sip.Request, error) {
	next := req.Clone()
	hops := sip.MaxForwardsHeader(70)
	if h := next.MaxForwards(); h != nil {
		if *h == 0 {
			return nil, &refusal{483, "Too Many Hops"}
		}
		hops = *h - 1
		next.RemoveHeader(h.Name())
	}
	next.AppendHeader(&hops)

	next.SetDestination(p.nextHop(next))
	p.noteSource(next)
	if req.IsInvite() || req.Method == sip.SUBSCRIBE {
		next.PrependHeader(&sip.RecordRouteHeader{Address: p.uri(next.Transport())})
	}
	next.PrependHeader(p.via(next.Transport(), sip.GenerateBranch()))
	if next.Transport() == "UDP" { // from our own socket; TCP is dialled
		next.Laddr = sip.Addr{IP: p.addr.Addr().AsSlice(), Port: int(p.addr.Port())}
	}
	return next, nil
}

// nextHop takes our own Route off a request and says where it goes: to the
// next Route; in a dialog, which our Route tells, to the request URI; else to
// the configured next hop.
func (p *proxy) nextHop(req *sip.Request) string {
	ours := false
	for r := req.Route(); r != nil && p.isUs(&r.Address); r = req.Route() {
		req.RemoveHeader(r.Name())
		ours = true
	}
	if r := req.Route(); r != nil {
		return hostPort(&r.Address, req.Transport())
	}
	if ours && !p.isUs(&req.Recipient) {
		return hostPort(&req.Recipient, req.Transport())
	}
	return p.opts.to
}

// isUs reports whether a URI is this proxy's.
func (p *proxy) isUs(u *sip.Uri) bool {
	port := u.Port
	if port == 0 {
		port = sip.DefaultUdpPort
	}
	return u.Host == p.addr.Addr().String() && port == int(p.addr.Port())
}

// hostPort is where a URI is to be found.
func hostPort(u *sip.Uri, transport string) string {
	port := u.Port
	if port == 0 {
		port = sip.DefaultPort(transport)
	}
	return net.JoinHostPort(u.Host, strconv.Itoa(port))
}

// noteSource notes in the topmost Via where a request came from, so that its
// responses find the way back (RFC 3261, 18.2.1; RFC 3581).
func (p *proxy) noteSource(req *sip.Request) {
	via := req.Via()
	host, port, err := net.SplitHostPort(req.Source())
	if via == nil || err != nil {
		return
	}
	rport := via.Params.Has("rport")
	if rport {
		via.Params.Add("rport", port)
	}
	if rport || via.Host != host {
		via.Params.Add("received", host)
	}
}

// uri is our own, for Record-Route.
func (p *proxy) uri(transport string) sip.Uri {
	u := sip.Uri{Scheme: "sip", Host: p.addr.Addr().String(), Port: int(p.addr.Port())}
	u.UriParams.Add("transport", sip.NetworkToLower(transport))
	u.UriParams.Add("lr", "")
	return u
}

// via is a Via of ours.
func (p *proxy) via(transport, branch string) *sip.ViaHeader {
	v := &sip.ViaHeader{
		ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: transport,
		Host: p.addr.Addr().String(), Port: int(p.addr.Port()),
	}
	v.Params.Add("branch", branch)
	return v
}

// cancelOf is the CANCEL for a request that was sent on (RFC 3261, 9.1): to the
// same place, with the same Via.
func cancelOf(next *sip.Request) *sip.Request {
	c := sip.NewRequest(sip.CANCEL, *next.Recipient.Clone())
	c.AppendHeader(next.Via().Clone())
	sip.CopyHeaders("Route", next, c)
	hops := sip.MaxForwardsHeader(70)
	c.AppendHeader(&hops)
	for _, name := range []string{"From", "To", "Call-ID"} {
		sip.CopyHeaders(name, next, c)
	}
	if h := next.CSeq(); h != nil {
		c.AppendHeader(&sip.CSeqHeader{SeqNo: h.SeqNo, MethodName: sip.CANCEL})
	}
	c.SetBody(nil)
	c.SetTransport(next.Transport())
	c.SetDestination(next.Destination())
	c.Laddr = next.Laddr
	return c
}
