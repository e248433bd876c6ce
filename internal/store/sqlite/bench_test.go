package sqlite_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/sqlite"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Batches of 5,000 through the real schema into a new file.
func BenchmarkStore_Write(b *testing.B) {
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "trace.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	traffic := storetest.NewTraffic(1, time.Now())
	events := make([]trace.Event, 5000)
	size := 0
	for b.Loop() {
		traffic.Fill(events)
		if err := s.Write(b.Context(), events); err != nil {
			b.Fatal(err)
		}
		size += len(events)
	}
	b.ReportMetric(float64(size)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkStore_Find(b *testing.B) {
	s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "trace.db"), store.Options{Relaxed: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	storetest.BenchmarkFind(b, s)
}
