package bench_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bench"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares what people will read with what was approved.
func golden(t *testing.T, name string, v fmt.Stringer) {
	t.Helper()
	file := filepath.Join("testdata", name)
	got := []byte(v.String())
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// machine is where no test runs.
func machine(database string) bench.Machine {
	return bench.Machine{CPU: "Z80", Cores: 2, Kernel: "Linux 7.0", Go: "go1.26", NATS: "2.15", Database: database}
}

func costs() bench.Costs {
	return bench.Costs{
		Programs: []bench.Cost{{"tap", 5.2, 4}, {"nats-server", 3.9, 3}, {"db-writer", 6.5, 5}, {"PostgreSQL", 15.6, 12}},
		Together: 24, Own: bench.Cost{CPU: 3.25, PerEvent: 2.5}, Others: 4.26, Stolen: 0.1,
	}
}

func pipeline() *bench.PipelineResult {
	return &bench.PipelineResult{
		Kind: "pipeline", Machine: machine("PostgreSQL 15.18"), Rate: 65_000, Cores: 2,
		Load: bench.Load{Sent: 1_300_000, Bytes: 1 << 30, Took: 20 * time.Second, Latest: 3140 * time.Microsecond},
		Rows: 1_300_000, Stored: 1_300_000, Whole: 20512 * time.Millisecond, PerSecond: 63_377.5,
		Frame: 62.7, Wire: 301.5, Memory: 45 << 20, Costs: costs(),
	}
}

func lossy() *bench.PipelineResult {
	r := pipeline()
	r.Sync = true
	r.Stored, r.Rows, r.Lost = 1_299_000, 1_299_001, 1000
	r.LostAt = []bench.Loss{{Place: "kernel: socket buffer of the tap full", Events: 900}, {Place: "nobody knows", Events: 100}}
	r.PerSecond, r.Together = 59_999, 31
	return r
}

func writer(database string, rows uint64, early, all float64) *bench.WriterResult {
	return &bench.WriterResult{
		Kind: "writer", Machine: machine(database), Cores: 2, Waiting: rows, Rows: rows, Stored: rows,
		EarlyTook: 20100 * time.Millisecond, EarlyRows: uint64(early * 20.1), EarlyPerSec: early,
		Took: time.Duration(float64(rows) / all * 1e9), PerSecond: all, Costs: costs(),
	}
}

func TestResults_forPeople(t *testing.T) {
	golden(t, "pipeline.golden", pipeline())
	golden(t, "pipeline_lossy.golden", lossy())
	golden(t, "writer.golden", writer("PostgreSQL 15.18", 5_000_000, 98_765, 77_777))
	golden(t, "send.golden", &bench.SendResult{Kind: "send", Load: bench.Load{Sent: 1234567, Took: 2 * time.Second, Latest: time.Millisecond}, CPU: 2.34})
	golden(t, "sink.golden", &bench.SinkResult{Kind: "sink", Events: 1234567, Took: 2 * time.Second})
}

const micro = `goos: linux
pkg: github.com/seed-452fa805/siptrace/pkg/hep
BenchmarkAppend-2   	27939010	        42.10 ns/op	       0 B/op	       0 allocs/op
BenchmarkAppend-2   	27939010	        44.00 ns/op	       0 B/op	       0 allocs/op
BenchmarkAppend-2   	27939010	        43.00 ns/op	       0 B/op	       1 allocs/op
BenchmarkDecode-2   	22513036	        91.22 ns/op	       0 B/op	       0 allocs/op
PASS
pkg: github.com/seed-452fa805/siptrace/pkg/trace
BenchmarkFrame-2    	   46462	      5102 ns/op	       159.4 ns/event	       3 B/op	       0 allocs/op
pkg: github.com/seed-452fa805/siptrace/pkg/trace/sipmsg
BenchmarkScan/INVITE-2    	  403546	       586.7 ns/op	1827.04 MB/s	       0 B/op	       0 allocs/op
`

// report reads results as they were written.
func report(t *testing.T, text string, results ...any) *bench.Report {
	t.Helper()
	b := bytes.NewBufferString(text)
	for _, r := range results {
		if err := bench.WriteJSON(b, r); err != nil {
			t.Fatal(err)
		}
	}
	var report bench.Report
	if err := report.Read(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	return &report
}

func TestReport(t *testing.T) {
	t.Run("tells every goal and what was measured", func(t *testing.T) {
		golden(t, "report.golden", report(t, micro, pipeline(),
			writer("PostgreSQL 15.18", 5_000_000, 98_765, 77_777), writer("SQLite 3.54.1", 1_200_000, 47_000, 45_678)))
	})
	t.Run("tells failures, and the worst of several runs", func(t *testing.T) {
		golden(t, "report_failed.golden", report(t, micro, pipeline(), lossy(), lossy(),
			writer("PostgreSQL 15.18", 5_000_000, 89_999, 77_777), writer("PostgreSQL 15.18", 5_000_000, 80_000, 70_000)))
	})
	t.Run("takes no run that is easier for one as promised", func(t *testing.T) {
		slow, short, wide, sqlite := pipeline(), pipeline(), pipeline(), pipeline()
		slow.Rate, short.Took, wide.Cores, sqlite.Machine = 10_000, 5*time.Second, 4, machine("SQLite 3.54.1")
		quick := writer("PostgreSQL 15.18", 100_000, 150_000, 150_000)
		quick.EarlyTook = time.Second
		golden(t, "report_easier.golden", report(t, "", slow, short, wide, sqlite, quick))
	})
	t.Run("refuses what is no result", func(t *testing.T) {
		var r bench.Report
		for _, text := range []string{"", "PASS\n", `{"kind":"holiday"}`, "{"} {
			if err := r.Read([]byte(text)); err == nil {
				t.Errorf("%q was read", text)
			}
		}
	})
}
