package bus_test

import (
	"context"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

func TestBus_everyEventArrivesOnce(t *testing.T) {
	for _, compression := range []string{bus.CompressS2, bus.CompressNone} {
		t.Run(compression, func(t *testing.T) {
			_, c := bed(t)
			p, sent, stopPublisher := publisher(t, c, bus.PublisherOptions{Compression: compression})
			var k keeper
			read, stopConsumer := consume(t, c, bus.ConsumerOptions{}, &k)

			const n = 10_000
			for first := 0; first < n; first += 100 {
				events := makeEvents(first, 100)
				if first%200 == 0 {
					if got := p.Offer(events); got != len(events) {
						t.Fatalf("Offer accepted %d events, want %d", got, len(events))
					}
				} else if err := p.Write(t.Context(), events); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all events arrive", func() bool { return k.distinct() == n })
			if err := stopPublisher(); err != nil {
				t.Error(err)
			}
			if err := stopConsumer(); err != nil {
				t.Error(err)
			}
			if got := k.all(); got != n {
				t.Errorf("the sink was given %d events, want %d", got, n)
			}
			if got := metric(t, sent, "siptrace_bus_published_events_total"); got != n {
				t.Errorf("published %v events, want %d", got, n)
			}
			if got := metric(t, sent, "siptrace_bus_buffer_bytes"); got != 0 {
				t.Errorf("%v bytes still held when all is acknowledged", got)
			}
			if got := metric(t, read, "siptrace_consumer_events_total"); got != n {
				t.Errorf("consumed %v events, want %d", got, n)
			}
		})
	}
}

func TestPublisher_lingerSealsALonelyEvent(t *testing.T) {
	_, c := bed(t)
	p, _, _ := publisher(t, c, bus.PublisherOptions{})
	var k keeper
	consume(t, c, bus.ConsumerOptions{}, &k)
	if got := p.Offer(makeEvents(0, 1)); got != 1 {
		t.Fatalf("Offer accepted %d events, want 1", got)
	}
	eventually(t, "the event arrives", func() bool { return k.distinct() == 1 })
}

func TestWrite_returnsWhenContextEnds(t *testing.T) {
	c := connect(t, "nats://127.0.0.1:1", "test") // nobody there
	p, _, _ := publisher(t, c, bus.PublisherOptions{FlushTimeout: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Write(ctx, makeEvents(0, 1)); err == nil {
		t.Error("Write returned nil without a server")
	}
}
