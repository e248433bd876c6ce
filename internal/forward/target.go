package forward

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// target is the address of a destination over UDP. A name is looked up when
// it is first needed, then every so often in the background and soon after it
// turned out bad, but never for an event. An address that was good stays when
// a lookup fails.
type target struct {
	host     string
	port     uint16
	network  string // ip, ip4 or ip6
	every    time.Duration
	timeout  time.Duration
	resolver *net.Resolver
	count    *counters
	log      *slog.Logger
	warn     throttle

	kick chan struct{} // an address turned out bad
	done chan struct{} // the background is over

	mu   sync.Mutex
	addr netip.Addr // invalid until known
	bad  netip.Addr // turned out bad; another one is better
	err  error      // of the last lookup
	next time.Time  // no lookup before, for those who cannot wait for the background
}

// lookupPause is the least time between two lookups, unless they are to come
// more often anyway.
const lookupPause = time.Second

// newTarget starts the background for a name; it ends with life.
func newTarget(d Destination, o Options, life context.Context, count *counters, log *slog.Logger) *target {
	t := &target{
		host: d.Host, port: d.Port, network: "ip",
		every: o.ResolveEvery, timeout: o.DialTimeout, resolver: o.Resolver, count: count, log: log,
		kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if a, err := netip.ParseAddr(d.Host); err == nil {
		t.addr = a
		close(t.done)
		return t
	}
	if d.From.IsValid() {
		t.network = "ip6"
		if d.From.Addr().Is4() {
			t.network = "ip4"
		}
	}
	go t.run(life)
	return t
}

// run looks the name up again and again.
func (t *target) run(ctx context.Context) {
	defer close(t.done)
	tick := time.NewTimer(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.kick:
		case <-tick.C:
		}
		if !sleep(ctx, t.pause(time.Now())) {
			return
		}
		_, _ = t.lookup(ctx) // said in the log, and by get
		tick.Reset(t.every)
	}
}

// pause is how long the next lookup has to wait.
func (t *target) pause(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next.Sub(now)
}

// wait waits for the background to end.
func (t *target) wait() { <-t.done }

// known returns the address if there is one, without waiting.
func (t *target) known() (netip.AddrPort, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return netip.AddrPortFrom(t.addr, t.port), t.addr.IsValid()
}

// get returns the address. It looks up a name only while nothing is known of it.
func (t *target) get(ctx context.Context) (netip.AddrPort, error) {
	t.mu.Lock()
	addr, err, next := t.addr, t.err, t.next
	t.mu.Unlock()
	if addr.IsValid() {
		return netip.AddrPortFrom(addr, t.port), nil
	}
	if err == nil || !time.Now().Before(next) {
		addr, err = t.lookup(ctx)
	}
	if !addr.IsValid() {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addr, t.port), nil
}

// failed says that addr turned out bad.
func (t *target) failed(addr netip.Addr) {
	t.mu.Lock()
	t.bad = addr
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default: // it is said already
	}
}

// lookup looks the name up and returns the address to use. That is the one in
// use if it is still one of the name's and has not turned out bad, and also if
// the lookup fails.
func (t *target) lookup(ctx context.Context) (netip.Addr, error) {
	within, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	addrs, err := t.resolver.LookupNetIP(within, t.network, t.host)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("%s has no address", t.host)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return t.addr, ctx.Err() // says nothing of the name
	}
	t.err, t.next = err, time.Now().Add(min(lookupPause, t.every))
	if err != nil {
		t.count.trouble(troubleResolve)
		if count, ok := t.warn.allow(time.Now()); ok {
			t.log.Warn("cannot look up collector", "host", t.host, "count", count, "err", err)
		}
		return t.addr, err
	}
	t.choose(addrs)
	return t.addr, nil
}

// choose takes one of addrs. With t.mu held.
func (t *target) choose(addrs []netip.Addr) {
	chosen := addrs[0].Unmap()
	for _, a := range addrs {
		a = a.Unmap()
		if a == t.addr && a != t.bad {
			return
		}
		if chosen == t.bad {
			chosen = a
		}
	}
	if t.addr.IsValid() && chosen != t.addr {
		t.log.Info("collector has another address", "host", t.host, "was", t.addr, "now", chosen)
	}
	t.addr, t.bad = chosen, netip.Addr{}
}

// sleep waits for d and reports whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
