package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A clock stands still until it is set.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time      { return time.UnixMicro(c.at.Load()).UTC() }
func (c *clock) set(t time.Time)     { c.at.Store(t.UnixMicro()) }
func (c *clock) add(d time.Duration) { c.set(c.now().Add(d)) }

// Two db-writers, each with its connections, its maintenance and its retention,
// live through some midnights in the thick of traffic.
func TestMidnight_twoWritersAndTheirRetentionLoseNothing(t *testing.T) {
	for _, tt := range []struct {
		name   string
		hourly bool
		unit   time.Duration
	}{{"days", false, 24 * time.Hour}, {"hours", true, time.Hour}} {
		t.Run(tt.name, func(t *testing.T) {
			n := &night{address: newDatabase(t), unit: tt.unit, keep: 3 * tt.unit, hourly: tt.hourly}
			applySchema(t, n.address)
			n.watch(t)
			n.live(t)
			n.check(t)
		})
	}
}

// A night is a test in progress.
type night struct {
	address string
	hourly  bool
	unit    time.Duration // of a partition
	keep    time.Duration
	clock   clock

	stores  []*postgres.Store
	schemas []*postgres.Schema
	batches []atomic.Int64 // written by each writer
	passes  atomic.Int64   // of retention
	refused atomic.Int64   // since the other one was at it
	number  atomic.Int64   // of the next event

	mu      sync.Mutex
	written []trace.Event
}

const nightWriters = 4

// watch notes who drops what, and whether it was the one that may.
func (n *night) watch(t *testing.T) {
	t.Helper()
	schema := schemaOf(t, n.address)
	execute(t, n.address, `CREATE TABLE dropped (name text, alone boolean);
		CREATE FUNCTION note_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO `+schema+`.dropped SELECT d.object_name, EXISTS (SELECT FROM pg_locks l
				CROSS JOIN LATERAL (SELECT hashtextextended('siptrace:retain:`+schema+`', 0) AS key) k
				WHERE l.locktype = 'advisory' AND l.granted AND l.pid = pg_backend_pid()
				AND (l.classid::bigint << 32 | l.objid::bigint) = k.key)
			FROM pg_event_trigger_dropped_objects() d WHERE d.schema_name = '`+schema+`' AND d.object_type = 'table' AND d.object_name LIKE 'sip\_trace\_p%';
		END $$;
		CREATE EVENT TRIGGER `+schema+`_drops ON sql_drop EXECUTE FUNCTION note_drop()`)
	t.Cleanup(func() { execute(t, n.address, `DROP EVENT TRIGGER `+schema+`_drops`) })
}

// live runs writers and retention over the midnights.
func (n *night) live(t *testing.T) {
	t.Helper()
	first := today()
	n.clock.set(first.Add(-2 * time.Second))
	n.batches = make([]atomic.Int64, nightWriters)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	run := func(what string, step func(context.Context) error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := step(t.Context()); err != nil {
					t.Errorf("%s: %v", what, err)
					stop()
				}
			}
		})
	}
	for i := range 2 {
		s := openStore(t, n.address, store.Options{Hourly: n.hourly})
		s.SetClock(n.clock.now)
		schema, err := postgres.NewSchema(n.address)
		if err != nil {
			t.Fatal(err)
		}
		schema.SetClock(n.clock.now)
		n.stores, n.schemas = append(n.stores, s), append(n.schemas, schema)
		run("Maintain", s.Maintain)
		run("Retain", func(ctx context.Context) error { return n.retain(ctx, schema) })
		for w := range nightWriters / 2 {
			w += i * nightWriters / 2
			run("Write", func(ctx context.Context) error { return n.write(ctx, s, w) })
		}
	}
	for range 3 {
		for _, step := range []time.Duration{0, 1900 * time.Millisecond, 200 * time.Millisecond, n.unit / 2} {
			n.clock.add(step)
			n.settle(ctx, t)
		}
		n.clock.set(n.clock.now().Truncate(n.unit).Add(n.unit - 2*time.Second))
	}
	stop()
	wg.Wait()
}

// settle waits until every writer has written, and retention has passed, by the clock as it is.
func (n *night) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	before := make([]int64, len(n.batches))
	for i := range n.batches {
		before[i] = n.batches[i].Load()
	}
	passes := n.passes.Load()
	done := func() bool {
		for i := range n.batches {
			if n.batches[i].Load() < before[i]+2 {
				return false
			}
		}
		return n.passes.Load() >= passes+2
	}
	waitFor(t, "writers and retention", func() bool { return ctx.Err() != nil || done() })
}

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !met(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// write writes a batch of events of both sides of midnight, of times that
// retention is about, and of long ago.
func (n *night) write(ctx context.Context, s *postgres.Store, w int) error {
	now := n.clock.now()
	midnight := now.Round(n.unit)
	var events []trace.Event
	for _, t := range []time.Time{
		now, midnight, midnight.Add(-time.Microsecond), midnight.Add(time.Second), midnight.Add(-time.Second), now.Add(n.unit),
		now.Add(-n.keep), now.Add(-n.keep - n.unit), midnight.Add(-n.keep - n.unit), midnight.Add(-n.keep - n.unit - time.Microsecond),
		now.AddDate(-9, 0, 0),
	} {
		e := at(t)
		e.Payload = fmt.Appendf(e.Payload, "%d", n.number.Add(1))
		e.Identify()
		events = append(events, e)
	}
	if err := s.Write(ctx, events); err != nil {
		return err
	}
	n.batches[w].Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written = append(n.written, events...)
	return nil
}

func (n *night) retain(ctx context.Context, s *postgres.Schema) error {
	dropped, err := s.Retain(ctx, store.Retention{Age: n.keep})
	if errors.Is(err, store.ErrRetaining) {
		n.refused.Add(1)
		return nil
	}
	for _, d := range dropped {
		_, until, _ := strings.Cut(d, ", up to ")
		if end, bad := time.Parse(time.DateTime, until); bad != nil || !end.Before(n.clock.now().Add(-n.keep)) {
			err = errors.Join(err, fmt.Errorf("dropped %s at %s", d, n.clock.now()))
		}
	}
	n.passes.Add(1)
	return err
}

// check looks at what there is in the morning.
func (n *night) check(t *testing.T) {
	t.Helper()
	if t.Failed() {
		return
	}
	if err := n.retain(t.Context(), n.schemas[0]); err != nil {
		t.Fatal(err)
	}
	oldest := n.clock.now().Add(-n.keep).Truncate(n.unit) // what begins earlier ends before what is kept
	want := make(map[trace.ID]bool)
	leaves := make(map[string]bool)
	name := "sip_trace_p20060102"
	if n.hourly {
		name += "_15"
	}
	for _, e := range n.written {
		if !e.Time.Before(oldest) {
			want[e.ID] = true
			leaves[e.Time.UTC().Format(name)] = true
		}
	}
	got := make(map[trace.ID]bool)
	for e, err := range n.stores[0].Find(t.Context(), trace.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if got[e.ID] {
			t.Errorf("event %s is there twice", e.ID)
		}
		got[e.ID] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d events are left, want %d", len(got), len(want))
	}
	for _, leaf := range partitions(t, n.address, "sip_trace") {
		delete(leaves, leaf)
		if day, err := time.Parse(name, leaf); err != nil || day.Before(oldest) {
			t.Errorf("partition %s is left: %v", leaf, err)
		}
	}
	if len(leaves) > 0 {
		t.Errorf("partitions %v are missing", slices.Collect(maps.Keys(leaves)))
	}
	drops := column(t, n.address, `SELECT count(*) FILTER (WHERE alone) || ' of ' || count(*) FROM dropped`)[0]
	if by, all, _ := strings.Cut(drops, " of "); by != all || all == "0" {
		t.Errorf("%s drops were made by the one that may", drops)
	}
	t.Logf("%d events, %d kept, %s partitions dropped by the one retention that may, %d passes, %d times the other was at it",
		len(n.written), len(want), drops, n.passes.Load(), n.refused.Load())
	if n.refused.Load() == 0 {
		t.Error("the two never met: the test proves nothing")
	}
}
