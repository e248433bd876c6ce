package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// CompleteFlags are what a tap adds to events that their source did not know,
// and what it leaves out.
type CompleteFlags struct {
	LocalIP   string    `name:"local-ip" help:"Address written in place of the server's own: source of what goes out, destination of what comes in." placeholder:"udp:IP:PORT"`
	LocalNet  []string  `name:"local-net" help:"Addresses of the traced servers, repeatable: a network, an address, or address and port. Tells the direction where no sender does." sep:"none" placeholder:"NET"`
	SLAcks    DefaultOn `name:"sl-acks" help:"false: leave out ACKs to negative replies that the traced server itself has made." default:"true" placeholder:"BOOL"`
	Store     DefaultOn `name:"store" env:"SIPTRACE_TAP_STORE" help:"false: db-writer skips what this tap takes." default:"true" placeholder:"BOOL"`
	Duplicate DefaultOn `name:"duplicate" env:"SIPTRACE_TAP_DUPLICATE" help:"false: hep-forwarder skips what this tap takes." default:"true" placeholder:"BOOL"`
	Table     string    `env:"SIPTRACE_TAP_TABLE" help:"Table of events for which no rule names one. Default: the writer's." placeholder:"NAME"`
}

// DefaultOn is a switch that is on unless it is said to be off: its zero value
// is on.
type DefaultOn struct{ Off bool }

// UnmarshalText reads "true" or "false".
func (d *DefaultOn) UnmarshalText(text []byte) error {
	on, err := strconv.ParseBool(string(text))
	if err != nil {
		return fmt.Errorf("%q: want true or false", text)
	}
	d.Off = !on
	return nil
}

// String is "true" or "false".
func (d DefaultOn) String() string { return strconv.FormatBool(!d.Off) }

// A completion fills in what a source could not know of an event. Several
// sources may share one.
type completion struct {
	local      netip.AddrPort // of --local-ip; zero is none
	localProto trace.Transport
	own        []ownAddr
	flags      trace.Flags
	acks       *localAcks // nil traces them all

	mu sync.Mutex // guards acks
}

// newCompletion reads the flags.
func newCompletion(f *CompleteFlags) (*completion, error) {
	c := &completion{}
	var err error
	if f.LocalIP != "" {
		if c.localProto, c.local, err = parseLocalIP(f.LocalIP); err != nil {
			return nil, fmt.Errorf("--local-ip %q: %w", f.LocalIP, err)
		}
	}
	for _, s := range f.LocalNet {
		o, err := parseOwnAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--local-net %q: %w", s, err)
		}
		c.own = append(c.own, o)
	}
	if f.Table != "" {
		if err := store.CheckNewTable(f.Table); err != nil {
			return nil, fmt.Errorf("--table: %w", err)
		}
	}
	if f.Store.Off {
		c.flags |= trace.NoStore
	}
	if f.Duplicate.Off {
		c.flags |= trace.NoDuplicate
	}
	if f.SLAcks.Off {
		c.acks = newLocalAcks()
	}
	return c, nil
}

// validate reports the first wrong value.
func (f *CompleteFlags) validate() error {
	_, err := newCompletion(f)
	return err
}

// idle reports whether there is nothing to do.
func (c *completion) idle() bool {
	return !c.local.IsValid() && len(c.own) == 0 && c.flags == 0 && c.acks == nil
}

// complete fills in e, and reports false for an event that is to be left out.
//
// The direction comes first, then the ACKs, which have to know it, and the
// local address last, for both look at the real ones.
func (c *completion) complete(e *trace.Event) bool {
	if e.Direction == trace.DirectionUnknown {
		e.Direction = c.direction(e)
	}
	if c.acks != nil {
		c.mu.Lock()
		leave := c.acks.toOwnReply(e)
		c.mu.Unlock()
		if leave {
			return false
		}
	}
	c.localize(e)
	e.Flags |= c.flags
	return true
}

// direction is in or out if exactly one end is the traced servers'.
func (c *completion) direction(e *trace.Event) trace.Direction {
	from, to := c.isOwn(e.Src), c.isOwn(e.Dst)
	switch {
	case from == to:
		return trace.DirectionUnknown
	case from:
		return trace.Out
	}
	return trace.In
}

func (c *completion) isOwn(a netip.AddrPort) bool {
	addr := a.Addr().Unmap()
	for _, o := range c.own {
		if o.net.Contains(addr) && (o.port == 0 || o.port == a.Port()) {
			return true
		}
	}
	return false
}

// localize writes --local-ip where siptrace's trace_local_ip goes: to the
// source of what goes out and the destination of what comes in.
func (c *completion) localize(e *trace.Event) {
	switch {
	case !c.local.IsValid():
		return
	case e.Direction == trace.Out:
		e.Src = c.local
	case e.Direction == trace.In:
		e.Dst = c.local
	default:
		return
	}
	if e.Transport == trace.TransportUnknown {
		e.Transport = c.localProto
	}
}

// parseLocalIP reads udp:10.1.1.1:5064. Without its transport it would say
// less than the address it replaces.
func parseLocalIP(s string) (trace.Transport, netip.AddrPort, error) {
	errForm := errors.New("want transport, address and port, as in udp:10.1.1.1:5064")
	name, rest, _ := strings.Cut(s, ":")
	t, ok := trace.ParseTransport(name)
	if !ok || t == trace.TransportUnknown {
		return 0, netip.AddrPort{}, errForm
	}
	a, err := netip.ParseAddrPort(rest)
	if err != nil || a.Addr().Zone() != "" || a.Addr().IsUnspecified() {
		return 0, netip.AddrPort{}, errForm
	}
	return t, unmap(a), nil
}

// An ownAddr is an address of a traced server, or many of them.
type ownAddr struct {
	net  netip.Prefix
	port uint16 // 0 is any
}

// parseOwnAddr reads 10.1.1.0/24, 10.1.1.1, 10.1.1.1:5060 or [2001:db8::1]:5060.
func parseOwnAddr(s string) (ownAddr, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return ownAddr{}, errors.New("want a network, as in 10.1.1.0/24")
		}
		return ownAddr{net: p.Masked()}, nil
	}
	var o ownAddr
	a, err := netip.ParseAddr(s)
	if err != nil {
		var ap netip.AddrPort
		if ap, err = netip.ParseAddrPort(s); err != nil {
			return ownAddr{}, errors.New("want a network, an address, or address and port: 10.1.1.0/24, 10.1.1.1, [2001:db8::1]:5060")
		}
		a, o.port = ap.Addr(), ap.Port()
	}
	a = a.Unmap().WithZone("")
	o.net = netip.PrefixFrom(a, a.BitLen())
	return o, nil
}

// completing is the sink in front of a tap's intake: it completes what a
// source writes. It changes none of the source's events.
type completing struct {
	*completion
	left prometheus.Counter // events left out
	out  trace.Sink

	mu    sync.Mutex // a source may write from several connections
	batch []trace.Event
}

// newCompleting puts a completion in front of a sink, unless there is nothing
// to complete.
func newCompleting(c *completion, out trace.Sink, reg prometheus.Registerer, source string) (trace.Sink, error) {
	if c.idle() {
		return out, nil
	}
	left := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "siptrace_tap_events_sl_acks_total", Help: "ACKs left out because of --sl-acks=false.",
		ConstLabels: prometheus.Labels{"source": source},
	})
	if err := reg.Register(left); err != nil {
		return nil, err
	}
	return &completing{completion: c, left: left, out: out}, nil
}

// Write hands on the events that are not left out.
func (c *completing) Write(ctx context.Context, events []trace.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch = c.batch[:0]
	for i := range events {
		c.batch = append(c.batch, events[i])
		if !c.complete(&c.batch[len(c.batch)-1]) {
			c.batch = c.batch[:len(c.batch)-1]
		}
	}
	if left := len(events) - len(c.batch); left > 0 {
		c.left.Add(float64(left))
	}
	if len(c.batch) == 0 {
		return nil
	}
	return c.out.Write(ctx, c.batch)
}
