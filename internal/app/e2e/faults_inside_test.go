package e2e

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/bench"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
)

// An inside is a program that sends SIP, is traced from inside by sipgotap and
// puts its events into the stream by itself: there is no tap between. Its ids
// are noted when the tap hands events over, which happens again until the stream
// has them.
type inside struct {
	t    *testing.T
	tap  *sipgotap.Tap
	bus  *bus.Publisher
	rate int

	stop chan struct{}
	once sync.Once
	end  chan struct{} // closed when nothing more is sent

	spoken uint64 // messages sent; of the goroutine that sends, until end

	mu  sync.Mutex
	ids map[trace.ID]bool
}

// newInside is a program that publishes to NATS at so many events a second. Its
// goroutines are not started.
func newInside(nats string, rate int) (*inside, *bus.Conn, error) {
	log := slog.New(slog.DiscardHandler)
	conn, err := bus.Connect(bus.Options{URL: nats, Name: insideAgent}, log)
	if err != nil {
		return nil, nil, err
	}
	publisher, err := bus.NewPublisher(conn, bus.PublisherOptions{Agent: insideAgent}, prometheus.NewRegistry(), log)
	if err != nil {
		return nil, nil, err
	}
	return &inside{
		bus: publisher, rate: rate, stop: make(chan struct{}), end: make(chan struct{}), ids: make(map[trace.ID]bool),
		tap: sipgotap.New(sipgotap.Options{Agent: trace.Agent{Name: insideAgent}, Buffer: 512 << 20, Log: log}),
	}, conn, nil
}

// insideAgent is who traces from inside.
const insideAgent = "inside"

// startInside sends until halt.
func startInside(t *testing.T, nats string, rate int) *inside {
	t.Helper()
	p, conn, err := newInside(nats, rate)
	if err != nil {
		t.Fatal(err)
	}
	p.t = t
	t.Cleanup(conn.Close)
	alive(t, p.bus.Run)
	alive(t, func(ctx context.Context) error { return p.tap.Run(ctx, p) })
	deaf, err := net.ListenPacket("udp4", loopback+":0") // what counts is that it was sent
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = deaf.Close() })
	go func() {
		defer close(p.end)
		if err := p.run(deaf.LocalAddr()); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(p.halt)
	return p
}

// alive runs something until the test ends.
func alive(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// run sends what is due each few milliseconds, until stop.
func (p *inside) run(to net.Addr) error {
	traffic, err := bench.NewTraffic(uint64(time.Now().UnixNano()), 1000, insideAgent)
	if err != nil {
		return err
	}
	socket, err := net.ListenPacket("udp4", loopback+":0")
	if err != nil {
		return err
	}
	conn := p.tap.WrapPacketConn(socket)
	defer conn.Close()
	tick := time.NewTicker(quantum)
	defer tick.Stop()
	var (
		dec    hep.Decoder
		packet hep.Packet
		b      []byte
		pace   = newPace(p.rate)
	)
	for {
		select {
		case <-p.stop:
			return nil
		case <-tick.C:
		}
		for range pace.due() {
			b = traffic.Append(b[:0], time.Now())
			if err := dec.Decode(&packet, b); err != nil {
				return err
			}
			if _, err := conn.WriteTo(packet.Payload, to); err != nil {
				return err
			}
			p.spoken++
		}
	}
}

// Write notes events and publishes them. It makes p what the tap brings its
// events to.
func (p *inside) Write(ctx context.Context, events []trace.Event) error {
	p.mu.Lock()
	for i := range events {
		p.ids[events[i].ID] = true
	}
	p.mu.Unlock()
	return p.bus.Write(ctx, events)
}

// halt ends the sending. A nil inside sends nothing.
func (p *inside) halt() {
	if p == nil {
		return
	}
	p.once.Do(func() { close(p.stop) })
	<-p.end
}

// seen is how many messages the tap has seen, and written how many of them are
// in the stream.
func (p *inside) seen() uint64 {
	if p == nil {
		return 0
	}
	return p.tap.Stats().Seen
}

func (p *inside) written() uint64 {
	if p == nil {
		return 0
	}
	return p.tap.Stats().Written
}

// all are the ids of what was sent. It fails the test if the tap has not seen
// each message, or has lost one.
func (p *inside) all() map[trace.ID]bool {
	if p == nil {
		return nil
	}
	p.t.Helper()
	s := p.tap.Stats()
	if s.Seen != p.spoken || s.Written != p.spoken || s.Faults > 0 {
		p.t.Errorf("of %d messages the tap inside has seen %d and written %d; %d dropped, %d refused, %d faults",
			p.spoken, s.Seen, s.Written, s.Dropped, s.Refused, s.Faults)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := uint64(len(p.ids)); n != p.spoken {
		p.t.Errorf("%d messages have become %d events", p.spoken, n)
	}
	return maps.Clone(p.ids)
}
