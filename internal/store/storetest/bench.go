package storetest

import (
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// BenchmarkFind measures the look-up of a call among 300,000 rows that were
// just written.
func BenchmarkFind(b *testing.B, s store.Store) {
	traffic := NewTraffic(1, time.Now().Add(-time.Minute))
	events := make([]trace.Event, 5000)
	for range 60 {
		traffic.Fill(events)
		if err := s.Write(b.Context(), events); err != nil {
			b.Fatal(err)
		}
	}
	ids := traffic.CallIDs()
	n, found := 0, 0
	for b.Loop() {
		for _, err := range s.Find(b.Context(), trace.Query{CallID: ids[n%len(ids)]}) {
			if err != nil {
				b.Fatal(err)
			}
			found++
		}
		n++
	}
	b.ReportMetric(float64(found)/float64(n), "events/call")
}
