package spool_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/spool"
)

// frames makes records of the size of a compressed frame of 64 events.
func frames(n int) (records [][]byte, events []int) {
	for range n {
		b := make([]byte, 17<<10)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		records, events = append(records, b), append(events, 64)
	}
	return records, events
}

// BenchmarkAppend writes and fsyncs batches, as at different rates.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 16, 128, 400} {
		b.Run(fmt.Sprintf("%d frames", n), func(b *testing.B) {
			s := open(b, b.TempDir(), spool.Options{DropOldest: true})
			defer s.close(b)
			records, events := frames(n)
			b.SetBytes(int64(n * len(records[0])))
			for b.Loop() {
				if _, err := s.Append(records, events); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "frames/s")
		})
	}
}

// BenchmarkDrain reads what was written and is told that it is done.
func BenchmarkDrain(b *testing.B) {
	const ahead = 64
	s := open(b, b.TempDir(), spool.Options{MaxBytes: 8 << 30})
	defer s.close(b)
	records, events := frames(400)
	n := 0
	b.SetBytes(int64(len(records[0])))
	b.StopTimer()
	for range b.N {
		if n == 0 {
			for range 10 {
				if _, err := s.Append(records, events); err != nil {
					b.Fatal(err)
				}
			}
			n = 4000
		}
		b.StartTimer()
		var seqs []uint64
		if err := s.Next(func(seq uint64, _ []byte, _ int) bool {
			seqs = append(seqs, seq)
			return len(seqs) < ahead
		}); err != nil {
			b.Fatal(err)
		}
		if err := s.Done(seqs); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		n = max(0, n-len(seqs))
		b.ReportMetric(float64(len(seqs)), "frames/op")
	}
	b.ReportMetric(float64(ahead*b.N)/b.Elapsed().Seconds(), "frames/s")
}
