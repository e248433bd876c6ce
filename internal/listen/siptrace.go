package listen

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// SIPOptions are what a listener for plain-SIP duplicates may be told. The zero
// value is good.
type SIPOptions struct {
	RcvBuf int    // bytes the kernel should hold for us; 0 is 32 MiB
	Guard  *Guard // what is not let in; nil lets everything in

	// Bare takes messages without X-Siptrace headers, too: as if the sender
	// of the duplicate had sent the message to us, when it came.
	Bare bool
}

// Siptrace is a source of plain-SIP duplicates with X-Siptrace headers, as
// Kamailio's siptrace module and hep-forwarder send them over UDP. An event is
// the message as the first node saw it: with its addresses, its time and its
// direction, and without the headers, byte for byte.
//
// A message whose headers do not say from where to where it went is dropped,
// and counted. One whose headers do not say when gets the time of its coming.
type Siptrace struct {
	*datagrams
	in    batch
	bare  bool
	local netip.AddrPort // of the socket; zero if it is every address

	headers xheaders // of the last message
	repeats repeats
}

// ListenSiptrace opens a UDP socket at addr. An addr without host is every
// address of the machine, IPv4 and IPv6. Close it.
func ListenSiptrace(addr string, o SIPOptions, reg prometheus.Registerer, log *slog.Logger) (*Siptrace, error) {
	d, err := openUDP(schemeSIP, addr, "plain sip", o.RcvBuf, o.Guard, newSIPCounters, reg, log)
	if err != nil {
		return nil, err
	}
	s := &Siptrace{datagrams: d, in: newBatch(d.count), bare: o.Bare}
	if a, err := netip.ParseAddrPort(s.Addr().String()); err == nil && !a.Addr().IsUnspecified() {
		s.local = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return s, nil
}

// Run writes what nodes send to sink, one Write for what one read brought,
// until ctx is done or the source is closed. Events that the sink does not
// take are lost, and counted: nobody would send them again.
func (s *Siptrace) Run(ctx context.Context, sink trace.Sink) error {
	return s.run(ctx, func(n int) { s.batch(ctx, sink, n) })
}

// batch hands on what the last read brought.
func (s *Siptrace) batch(ctx context.Context, sink trace.Sink, n int) {
	s.each(n, func(i int, b []byte) (drop, error) { return s.add(i, b), nil })
	s.handOn(ctx, &s.in, sink)
}

// add adds the event of a datagram to the batch, or says why there is none.
// The event aliases the datagram, which is changed.
func (s *Siptrace) add(i int, b []byte) drop {
	if len(b) == 0 {
		return dropEmpty
	}
	x := &s.headers
	msg := x.cut(b)
	switch {
	case x.addresses(), s.bare:
	case x.found == 0:
		return dropNoXHeaders
	default:
		return dropBadXHeaders
	}
	e := s.in.next()
	*e = trace.Event{
		Time: x.time, Transport: x.transport, Src: x.src, Dst: x.dst, Direction: x.direction,
		Type: trace.TypeSIP, Payload: msg,
	}
	if x.found&(xFrom|xTo) == 0 {
		e.Transport, e.Src, e.Dst = trace.UDP, s.recv.from(i), s.local
	}
	if !e.Time.IsZero() {
		return 0
	}
	if e.Time = s.recv.at(i); s.guard != nil && s.repeats.tooMany(e) {
		s.in.undo()
		return dropLoop
	}
	return 0
}
