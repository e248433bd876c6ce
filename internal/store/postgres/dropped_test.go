package postgres_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// session is a connection of somebody else's, in a transaction.
func session(t *testing.T, address string, statements ...string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	for _, sql := range append([]string{"BEGIN"}, statements...) {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return c
}

func commit(t *testing.T, c *pgx.Conn) {
	t.Helper()
	if _, err := c.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
}

// waiting waits until somebody waits for a lock with a statement like that,
// and returns the number of its process.
func waiting(t *testing.T, address, statement string) (pid string) {
	t.Helper()
	waitFor(t, statement+" to wait", func() bool {
		list := column(t, address, `SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1 AND pid <> pg_backend_pid()`, statement)
		pid = strings.Join(list, " ")
		return len(list) == 1
	})
	return pid
}

func dropDefault(t *testing.T, address string) {
	t.Helper()
	execute(t, address, `DROP TABLE sip_trace CASCADE`)
}

func TestDroppedTable_inMidWork(t *testing.T) {
	for _, tt := range []struct {
		name, table string
		cascade     string
	}{
		{"of events that name none is an outage", "", "sip_trace"},
		{"that an event names is noticed at once", "brief", "brief"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := newDatabase(t)
			applySchema(t, address)
			execute(t, address, `SELECT siptrace_create_table('brief', 200)`)
			s := openStore(t, address, store.Options{})
			events := []trace.Event{at(today()), at(today().Add(time.Second)), at(today().Add(2 * time.Second))}
			events[0].Table, events[1].Table, events[2].Table = "brief", "", tt.table
			before := slices.Clone(events)
			for i := range before {
				before[i].Time = before[i].Time.Add(time.Hour)
				before[i].Identify()
			}
			write(t, s, before...)

			admin := session(t, address, `DROP TABLE `+tt.cascade+` CASCADE`) // every COPY to it waits now
			result := make(chan error, 1)
			go func() { result <- s.Write(t.Context(), events) }()
			waiting(t, address, "COPY %")
			commit(t, admin)
			err := <-result
			if tt.table == "" {
				var e *postgres.Error
				if !errors.As(err, &e) || e.Class != store.ClassSchema || errors.Is(err, trace.ErrPermanent) {
					t.Fatalf("Write = %v, want it to be tried again", err)
				}
				applySchema(t, address)
				write(t, s, events...)
				if got := count(t, s, trace.Query{}); got != 2 {
					t.Errorf("%d events, want 2", got)
				}
				return
			}
			var rejected trace.Rejected
			if !errors.As(err, &rejected) || len(rejected) != 2 || rejected[0].Index != 0 || rejected[1].Index != 2 || rejected[0].Reason != store.UnknownTable {
				t.Errorf("Write = %v, want events 0 and 2 refused", err)
			}
			if got := count(t, s, trace.Query{}); got != 2 {
				t.Errorf("%d events, want 2", got)
			}
		})
	}
}

func TestDroppedTable_isLearntAnew(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	s := openStore(t, address, store.Options{})
	old := at(today().AddDate(0, 0, -3))
	write(t, s, old, at(today()))
	t.Run("when it was made again between two batches", func(t *testing.T) {
		dropDefault(t, address)
		applySchema(t, address)
		write(t, s, old, at(today()))
		if got := count(t, s, trace.Query{}); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
		if err := s.Maintain(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("when it is made again by hand, step by step", func(t *testing.T) {
		execute(t, address, `CREATE TABLE model (LIKE sip_trace)`)
		dropDefault(t, address)
		for _, step := range []string{
			`CREATE TABLE sip_trace (LIKE model) PARTITION BY RANGE (time_stamp)`,
			`ALTER TABLE sip_trace DROP COLUMN node`,
			`ALTER TABLE sip_trace ADD PRIMARY KEY (time_stamp, event_id, traced_user)`,
		} {
			execute(t, address, step)
			if err := s.Write(t.Context(), []trace.Event{old}); err == nil || errors.Is(err, trace.ErrPermanent) {
				t.Errorf("after %s: Write = %v, want it to be tried again", step, err)
			}
			if err := s.Ready(t.Context()); err == nil || strings.Contains(err.Error(), "schema apply") {
				t.Errorf("after %s: Ready = %v", step, err)
			}
		}
		execute(t, address, `ALTER TABLE sip_trace ADD COLUMN node text NOT NULL DEFAULT ''`)
		for range 2 {
			write(t, s, old, at(today()))
		}
		if got := count(t, s, trace.Query{}); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
	})
	t.Run("when it was renamed with its partitions", func(t *testing.T) {
		execute(t, address, `ALTER TABLE sip_trace RENAME TO archive`)
		if err := s.Write(t.Context(), []trace.Event{old}); err == nil || errors.Is(err, trace.ErrPermanent) {
			t.Errorf("Write = %v, want it to be tried again", err)
		}
		applySchema(t, address)
		write(t, s, old, at(today()))
		if got := count(t, s, trace.Query{}); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
		indexed := column(t, address, `SELECT indexdef FROM pg_indexes WHERE tablename = 'sip_trace' AND schemaname = current_schema() AND indexdef LIKE '%(callid)'`)
		if len(indexed) != 1 {
			t.Errorf("indexes on callid: %q", indexed)
		}
	})
	t.Run("with the parts that make partitions", func(t *testing.T) {
		execute(t, address, `DROP FUNCTION siptrace_add_partition; DROP TABLE trace_tables`)
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "missing: table trace_tables, function siptrace_add_partition; ctl schema apply") {
			t.Errorf("Ready = %v", err)
		}
		e := at(today().AddDate(0, 0, -9))
		if err := s.Write(t.Context(), []trace.Event{e}); err == nil || !strings.Contains(err.Error(), "ctl schema apply") || errors.Is(err, trace.ErrPermanent) {
			t.Errorf("Write = %v, want it to be tried again", err)
		}
		applySchema(t, address)
		write(t, s, e)
		if err := s.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDroppedTable_againAndAgainUnderLoadLosesNothing(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	var wg sync.WaitGroup
	var stop sync.Once
	done := make(chan struct{})
	defer stop.Do(func() { close(done) })
	for w := range 2 {
		s := openStore(t, address, store.Options{})
		traffic := storetest.NewTraffic(uint64(w), time.Now().Add(-time.Hour))
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					writeUntilSafe(t, s, traffic.Events(50))
				}
			}
		})
	}
	reader := openStore(t, address, store.Options{})
	for range 5 {
		dropDefault(t, address)
		if err := reader.Ready(t.Context()); err == nil {
			t.Error("ready without a table")
		}
		applySchema(t, address)
		waitFor(t, "rows", func() bool { return count(t, reader, trace.Query{Limit: 1}) == 1 })
	}
	stop.Do(func() { close(done) })
	wg.Wait()
	s := openStore(t, address, store.Options{})
	last := storetest.NewTraffic(9, time.Now().Add(-2*time.Hour)).Events(100)
	write(t, s, last...)
	if got := count(t, s, trace.Query{To: last[len(last)-1].Time.Add(time.Microsecond)}); got != len(last) {
		t.Errorf("%d events, want %d", got, len(last))
	}
}

func TestRetain_besideAWriterOfTheSameDay(t *testing.T) {
	address := newDatabase(t)
	s := openStore(t, address, store.Options{})
	old := today().AddDate(0, 0, -9)
	write(t, s, at(old), at(today()))
	schema, err := postgres.NewSchema(address)
	if err != nil {
		t.Fatal(err)
	}
	retain := func() error {
		_, err := schema.Retain(t.Context(), store.Retention{Age: 48 * time.Hour})
		return err
	}
	t.Run("the writer waits for a partition that is being dropped", func(t *testing.T) {
		reader := session(t, address, `SELECT count(*) FROM sip_trace`)
		retained, written := make(chan error, 1), make(chan error, 1)
		go func() { retained <- retain() }()
		waiting(t, address, "ALTER TABLE % DETACH %")
		if err := retain(); !errors.Is(err, store.ErrRetaining) {
			t.Errorf("a second Retain = %v", err)
		}
		write(t, s, at(today().Add(time.Second))) // the others do not wait
		go func() {
			written <- s.Write(t.Context(), []trace.Event{at(old.Add(time.Second)), at(today().Add(2 * time.Second))})
		}()
		waiting(t, address, "SELECT %pg_advisory_lock_shared%")
		commit(t, reader)
		if err := errors.Join(<-retained, <-written); err != nil {
			t.Error(err)
		}
		if got := count(t, s, trace.Query{}); got != 4 {
			t.Errorf("%d events, want 4", got)
		}
	})
	t.Run("a retention that died half-way holds up nobody", func(t *testing.T) {
		reader := session(t, address, `SELECT count(*) FROM sip_trace`)
		retained := make(chan error, 1)
		go func() { retained <- retain() }()
		pid := waiting(t, address, "ALTER TABLE % DETACH %")
		execute(t, address, `SELECT pg_terminate_backend(`+pid+`)`)
		if err := <-retained; err == nil {
			t.Error("Retain went on without its connection")
		}
		commit(t, reader)
		write(t, s, at(old.Add(2*time.Second)))
		if got := strings.Join(partitions(t, address, "sip_trace"), " "); got != day(old)+"_2 "+day(today()) {
			t.Errorf("partitions %s", got)
		}
		for range 2 {
			if err := retain(); err != nil {
				t.Fatal(err)
			}
		}
		left := column(t, address, `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '_p[0-9]' AND relnamespace = current_schema()::regnamespace`)
		if got := strings.Join(left, " "); got != day(today()) {
			t.Errorf("tables left: %s, want today's", got)
		}
	})
	t.Run("what somebody else has detached is kept", func(t *testing.T) {
		write(t, s, at(old))
		execute(t, address, `ALTER TABLE sip_trace DETACH PARTITION `+day(old))
		if err := retain(); err != nil {
			t.Fatal(err)
		}
		if got := column(t, address, `SELECT count(*)::text FROM `+day(old))[0]; got != "1" {
			t.Errorf("%s rows, want 1", got)
		}
	})
}
