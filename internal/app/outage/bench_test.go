package outage_test

import (
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// BenchmarkOutage is how fast events get to disk while NATS is away, and into
// the stream when it is back. Each run is one outage of so many events.
func BenchmarkOutage(b *testing.B) {
	const each = 200_000
	events := makeEvents(0, each)
	var there, back time.Duration
	for range b.N {
		addr := freeAddr(b)
		p := startTap(b, addr, b.TempDir(), tapOptions{PublisherOptions: bus.PublisherOptions{
			BufferBytes: 64 << 20, DrainRate: 10_000_000, SpoolSync: 200 * time.Millisecond,
		}})
		start := time.Now()
		for at := 0; at < each; {
			n := p.Offer(events[at:min(at+64, each)])
			at += n
			if n == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		eventually(b, "all is on disk", func() bool { return p.metric(b, "spooled_events_total") == each })
		there += time.Since(start)
		server := startServer(b, b.TempDir(), addr, bus.StreamConfig{})
		eventually(b, "the first is back", func() bool { return p.metric(b, "spool_drained_events_total") > 0 })
		start = time.Now()
		before := p.metric(b, "spool_drained_events_total")
		eventually(b, "all is back", func() bool { return p.metric(b, "spool_drained_events_total") == each })
		back += time.Since(start) * time.Duration(each) / time.Duration(max(1, each-before))
		if err := p.stop(); err != nil {
			b.Fatal(err)
		}
		server.Shutdown()
	}
	b.ReportMetric(float64(each*b.N)/there.Seconds(), "events/s-to-disk")
	b.ReportMetric(float64(each*b.N)/back.Seconds(), "events/s-back")
}
