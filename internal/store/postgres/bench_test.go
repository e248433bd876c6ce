package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Batches of 5,000 through the real schema and its indexes, every commit on
// the disk. The server has its own memory settings, not the tests'.
func BenchmarkStore_Write(b *testing.B) {
	server, err := pgserver.Start("", "shared_buffers=4GB", "max_wal_size=16GB", "checkpoint_timeout=15min", "wal_buffers=64MB",
		"default_toast_compression=lz4")
	skipWithout(b, err)
	defer server.Stop()
	for _, connections := range []int{1, 2} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			execute(b, server.URL(), "DROP SCHEMA IF EXISTS bench CASCADE")
			execute(b, server.URL(), "CREATE SCHEMA bench")
			execute(b, server.URL(), "CHECKPOINT")
			s := openStore(b, inSchema(b, server.URL(), "bench"), store.Options{Connections: connections})
			benchmarkWrite(b, server, s, connections)
		})
	}
}

func benchmarkWrite(b *testing.B, server *pgserver.Server, s *postgres.Store, writers int) {
	const size = 5000
	if err := s.Maintain(b.Context()); err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	batches := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		traffic := storetest.NewTraffic(uint64(w), now)
		events := make([]trace.Event, size)
		wg.Go(func() {
			for range batches {
				traffic.Fill(events)
				if err := s.Write(b.Context(), events); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	used := server.CPU()
	for range b.N {
		batches <- struct{}{}
	}
	close(batches)
	wg.Wait()
	b.StopTimer()
	rows := float64(b.N) * size
	b.ReportMetric(rows/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64((server.CPU()-used).Microseconds())/rows, "server-µs/row")
}

func BenchmarkStore_Find(b *testing.B) {
	server, err := pgserver.Start("", pgserver.NoSync, "shared_buffers=1GB")
	skipWithout(b, err)
	defer server.Stop()
	storetest.BenchmarkFind(b, openStore(b, server.URL(), store.Options{Relaxed: true}))
}
