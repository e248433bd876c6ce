package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

const (
	// neighboursEvery is how often a process asks who else is there, and
	// neighboursFirst how often in its first minute, when others start, too.
	neighboursEvery = 15 * time.Second
	neighboursFirst = 3 * time.Second

	// neighboursWait is how long it waits for one more answer.
	neighboursWait = 300 * time.Millisecond

	// neighboursTime is how long all of it may take.
	neighboursTime = 5 * time.Second
)

// neighbours are what a process knows of its fleet: which one it is, where its
// taps listen, and how its forwarders send plain SIP. With them a forwarder
// finds that it would send to a tap, and a tap that it has been shown a copy.
// It is a [forward.Guard].
//
// The others are asked over NATS, every so often; what was learned last holds
// until there is an answer again.
type neighbours struct {
	conn  *bus.Conn
	log   *slog.Logger
	told  func(fleet string)        // hears which fleet it is; may be nil
	ahead func(ctx context.Context) // is called ahead of every question; may be nil
	fleet atomic.Pointer[[]byte]
	known atomic.Pointer[places]
	ready chan struct{} // closed when something is known

	awaited func() time.Time // when that was first waited for
}

func newNeighbours(c *bus.Conn, told func(fleet string), log *slog.Logger) *neighbours {
	n := &neighbours{conn: c, log: log, told: told, ready: make(chan struct{}), awaited: sync.OnceValue(time.Now)}
	n.fleet.Store(new([]byte))
	n.known.Store(new(places))
	return n
}

// Origin is the fleet's name, empty until it is known.
func (n *neighbours) Origin() []byte { return *n.fleet.Load() }

// Refuse says which tap of the fleet listens at an address.
func (n *neighbours) Refuse(network string, to netip.AddrPort) error {
	if who, ok := n.known.Load().taps[place{network, to}]; ok {
		return fmt.Errorf("%s of this fleet listens there", who)
	}
	return nil
}

// copies reports whether a forwarder of the fleet sends plain SIP over UDP from
// one address to another, and whether there is any such at all.
func (n *neighbours) copies(from netip.Addr, to netip.AddrPort) bool {
	sends := n.known.Load().sends
	return len(sends) > 0 && sends[way{from, to}]
}

// await waits until something is known, but not for ever, and not again: where
// nobody may ask, the work goes on without knowing.
func (n *neighbours) await(ctx context.Context) {
	if n.knows() {
		return
	}
	rest := time.Until(n.awaited().Add(2 * neighboursTime))
	if rest <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-n.ready:
	case <-time.After(rest):
	}
}

// run asks again and again, until ctx is done.
func (n *neighbours) run(ctx context.Context) error {
	begun, wait := time.Now(), time.Duration(0)
	for warned := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if n.conn.Await(ctx) != nil {
			return nil
		}
		if n.ahead != nil {
			n.ahead(ctx)
		}
		err := n.learn(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !warned {
			n.log.Warn("the rest of the fleet is not known, asking again", "err", err)
		}
		warned, wait = err != nil, neighboursEvery
		if err != nil && !n.knows() || time.Since(begun) < time.Minute {
			wait = neighboursFirst
		}
	}
}

// knows reports whether there ever was an answer.
func (n *neighbours) knows() bool {
	select {
	case <-n.ready:
		return true
	default:
		return false
	}
}

// learn asks once.
func (n *neighbours) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, neighboursTime)
	defer cancel()
	fleet, err := n.conn.Fleet(ctx)
	if err != nil {
		return err
	}
	name := []byte(fleet)
	n.fleet.Store(&name)
	if n.told != nil {
		n.told(fleet)
	}
	nodes, err := n.conn.Nodes(ctx, neighboursWait)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()   // unknown is empty
	addrs, err := localAddrs() // what cannot be told apart counts as one
	n.known.Store(placesOf(nodes, host, addrs))
	if !n.knows() {
		close(n.ready)
	}
	return err
}
