package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// at makes an event of a time.
func at(t time.Time) trace.Event {
	e := trace.Event{Time: t, Type: trace.TypeSIP, Payload: fmt.Appendf(nil, "OPTIONS sip:a@b SIP/2.0\r\nCall-ID: %d\r\n\r\n", t.UnixMicro())}
	e.Identify()
	return e
}

// column runs a query and returns its one column.
func column(t *testing.T, address, query string, args ...any) []string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	rows, err := c.Query(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// partitions lists those of a table.
func partitions(t *testing.T, address, table string) []string {
	t.Helper()
	return column(t, address, `SELECT relid::text FROM pg_partition_tree($1) WHERE isleaf AND level > 0 ORDER BY 1`, table)
}

func count(t *testing.T, s store.Store, q trace.Query) int {
	t.Helper()
	n := 0
	for _, err := range s.Find(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func write(t *testing.T, s trace.Sink, events ...trace.Event) {
	t.Helper()
	if err := s.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func today() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }

func day(t time.Time) string { return "sip_trace_p" + t.UTC().Format("20060102") }

func TestPartitions(t *testing.T) {
	t.Run("are made for the days that a batch is of", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{})
		first, last := today().AddDate(0, 0, -3), today().AddDate(-9, 0, 0)
		write(t, s, at(first), at(first.Add(24*time.Hour-time.Microsecond)), at(last))
		want := []string{day(last), day(first)}
		if got := partitions(t, address, "sip_trace"); !slices.Equal(got, want) {
			t.Errorf("partitions %v, want %v", got, want)
		}
		if got := count(t, s, trace.Query{}); got != 3 {
			t.Errorf("%d events, want 3", got)
		}
	})
	t.Run("are made ahead", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{})
		for range 2 {
			if err := s.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{day(today()), day(today().AddDate(0, 0, 1)), day(today().AddDate(0, 0, 2))}
		if got := partitions(t, address, "sip_trace"); !slices.Equal(got, want) {
			t.Errorf("partitions %v, want %v", got, want)
		}
	})
	t.Run("are of an hour when told so", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{Hourly: true})
		start := today().AddDate(0, 0, -1)
		write(t, s, at(start), at(start.Add(time.Hour)), at(start.Add(24*time.Hour-time.Microsecond)))
		want := []string{day(start) + "_00", day(start) + "_01", day(start) + "_23"}
		if got := partitions(t, address, "sip_trace"); !slices.Equal(got, want) {
			t.Errorf("partitions %v, want %v", got, want)
		}
		if err := s.Maintain(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("of days and of hours get along", func(t *testing.T) {
		address := newDatabase(t)
		daily, hourly := openStore(t, address, store.Options{}), openStore(t, address, store.Options{Hourly: true})
		first, second := today().AddDate(0, 0, -5), today().AddDate(0, 0, -4)
		write(t, hourly, at(first))
		write(t, daily, at(second))
		write(t, daily, at(first.Add(time.Second)), at(first.Add(5*time.Hour)))
		write(t, hourly, at(second.Add(time.Second)), at(second.Add(5*time.Hour)))
		want := []string{day(first) + "_00", day(first) + "_05", day(second)}
		if got := partitions(t, address, "sip_trace"); !slices.Equal(got, want) {
			t.Errorf("partitions %v, want %v", got, want)
		}
		if got := count(t, daily, trace.Query{}); got != 6 {
			t.Errorf("%d events, want 6", got)
		}
	})
	t.Run("are made anew when somebody has dropped them", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{})
		e := at(today().AddDate(0, 0, -1))
		write(t, s, e)
		execute(t, address, "DROP TABLE "+day(e.Time))
		write(t, s, e, at(today()))
		if got := count(t, s, trace.Query{}); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
	})
	t.Run("get another name where something else has theirs", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{})
		write(t, s, at(today()))
		old := today().AddDate(0, 0, -7)
		execute(t, address, "CREATE TABLE "+day(old)+" (x integer)")
		write(t, s, at(old), at(old.Add(time.Second)))
		write(t, openStore(t, address, store.Options{}), at(old.Add(2*time.Second)))
		if got, want := partitions(t, address, "sip_trace"), []string{day(old) + "_2", day(today())}; !slices.Equal(got, want) {
			t.Errorf("partitions %v, want %v", got, want)
		}
		if got := count(t, s, trace.Query{}); got != 4 {
			t.Errorf("%d events, want 4", got)
		}
	})
	t.Run("are made once when two writers come to midnight at once", testMidnight)
	t.Run("that cannot be made take only their own rows with them", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{})
		write(t, s, at(today()))
		blocked := today().AddDate(0, 0, -7)
		execute(t, address, fmt.Sprintf("CREATE TABLE odd PARTITION OF sip_trace FOR VALUES FROM ('%[1]s 00:30Z') TO ('%[1]s 00:45Z')",
			blocked.Format(time.DateOnly)))
		err := s.Write(t.Context(), []trace.Event{at(blocked), at(today().Add(time.Second)), at(blocked.Add(time.Second))})
		var rejected trace.Rejected
		if !errors.As(err, &rejected) || len(rejected) != 2 || rejected[0].Index != 0 || rejected[1].Index != 2 || rejected[0].Reason != store.Refused {
			t.Errorf("Write = %v, want events 0 and 2 refused", err)
		}
		if got := count(t, s, trace.Query{}); got != 2 {
			t.Errorf("%d events, want 2", got)
		}
	})
}

func testMidnight(t *testing.T) {
	address := newDatabase(t)
	const writers, days = 4, 6
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		s := openStore(t, address, store.Options{})
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for d := range days {
				midnight := today().AddDate(0, 0, -d)
				var events []trace.Event
				for i := range 50 {
					events = append(events, at(midnight.Add(time.Duration(i-25)*time.Second+time.Duration(w)*time.Millisecond)))
				}
				errs[w] = errors.Join(errs[w], s.Write(t.Context(), events))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, address, store.Options{})
	if got := count(t, s, trace.Query{}); got != writers*days*50 {
		t.Errorf("%d events, want %d", got, writers*days*50)
	}
	if got := len(partitions(t, address, "sip_trace")); got != days+1 {
		t.Errorf("%d partitions, want %d", got, days+1)
	}
}

func TestWrite_refusesTimesOutOfRange(t *testing.T) {
	address := newDatabase(t)
	s := openStore(t, address, store.Options{})
	now := time.Now()
	events := []trace.Event{
		at(time.Unix(0, 0)),
		at(now.Add(-11 * 366 * 24 * time.Hour)),
		at(now.Add(-9 * 365 * 24 * time.Hour)),
		at(now),
		at(now.Add(47 * time.Hour)),
		at(now.Add(49 * time.Hour)),
		at(time.Date(2106, 1, 1, 0, 0, 0, 0, time.UTC)),
		at(time.Date(-100_000, 1, 1, 0, 0, 0, 0, time.UTC)),
		at(time.Date(200_000, 1, 1, 0, 0, 0, 0, time.UTC)),
	}
	err := s.Write(t.Context(), events)
	var rejected trace.Rejected
	if !errors.As(err, &rejected) {
		t.Fatalf("Write = %v", err)
	}
	var got []int
	for _, r := range rejected {
		got = append(got, r.Index)
		if r.Reason != store.TimeOutOfRange {
			t.Errorf("event %d refused for %q", r.Index, r.Reason)
		}
	}
	if want := []int{0, 1, 5, 6, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("refused %v, want %v", got, want)
	}
	if got := count(t, s, trace.Query{}); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
	if got := len(partitions(t, address, "sip_trace")); got != 3 {
		t.Errorf("%d partitions, want 3", got)
	}
}
