package parity

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// known is how many rows of each run differ on purpose.
var known = map[string]map[string]int{
	"hep3_db":      {"totag": 23, "one row for a user": 2},
	"hep2_db":      {"totag": 23, "one row for a user": 2},
	"hep1_db":      {"totag": 23, "one row for a user": 2},
	"core_init1":   {},
	"tcp_hep3_db":  {"totag": 16, "transport of relayed replies": 30, "one row for a user": 2},
	"db_users_off": {"totag": 6, "one row for a user": 2},
}

// wrote is how many rows Kamailio has written in each run.
var wrote = map[string]int{"hep3_db": 196, "hep2_db": 196, "hep1_db": 196, "core_init1": 125, "tcp_hep3_db": 177, "db_users_off": 71}

// The events of each run, over the bus's frames into a database, are the rows
// that Kamailio wrote of them.
func TestRows_areKamailios(t *testing.T) {
	databases := map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "trace.db") },
		"postgres": newDatabase,
	}
	for run, n := range wrote {
		events, want := kamailioRun(t, run)
		if len(want) != n {
			t.Fatalf("%s: Kamailio wrote %d rows, want %d", run, len(want), n)
		}
		want = expected(t, want, known[run])
		for name, address := range databases {
			t.Run(run+" "+name, func(t *testing.T) {
				s, err := open.Writer(t.Context(), address(t), store.Options{CreateTables: true, Connections: 1})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for range 2 { // once more, as after a redelivery
					if err := s.Write(t.Context(), overTheBus(t, events)); err != nil {
						t.Fatal(err)
					}
				}
				got, err := stored(t, s, tablesOf(want)...)
				if err != nil {
					t.Fatal(err)
				}
				same(t, got, want)
			})
		}
	}
}

// Whoever has Kamailio's table and queries made for it keeps them: the columns
// are read as any client of the database reads them.
func TestRows_areKamailiosInKamailiosOwnTable(t *testing.T) {
	events, want := kamailioRun(t, "core_init1")
	want = expected(t, want, known["core_init1"])
	address := newDatabase(t)
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), storetest.KamailioTable); err != nil {
		t.Fatal(err)
	}
	s, err := open.Writer(t.Context(), address, store.Options{NoSchema: true, Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Write(t.Context(), overTheBus(t, events)); err != nil {
		t.Fatal(err)
	}
	rows, err := c.Query(t.Context(), `SELECT 'sip_trace', to_char(time_stamp, 'YYYY-MM-DD HH24:MI:SS') || '.' || lpad(time_us::text, 6, '0'), callid,
		traced_user, msg, method, status, fromip, toip, fromtag, totag, direction FROM sip_trace`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if digits, ok := strings.CutPrefix(got[i].Msg, `\x`); ok {
			msg, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatal(err)
			}
			got[i].Msg = string(msg)
		}
	}
	same(t, got, want)
}

// kamailioRun are the events of a run, and Kamailio's rows of them.
func kamailioRun(t testing.TB, run string) (events []trace.Event, rows []row) {
	t.Helper()
	for _, r := range recordedEvents(t, run) {
		events = append(events, r.event(t))
		rows = append(rows, r.rows(t)...)
	}
	return events, rows
}

// overTheBus sends events through a frame.
func overTheBus(t testing.TB, events []trace.Event) []trace.Event {
	t.Helper()
	var frame []byte
	var err error
	for i := range events {
		if frame, err = trace.AppendEvent(frame, &events[i]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := new(trace.FrameDecoder).Decode(frame)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tablesOf(rows []row) []string {
	var all []string
	for _, r := range rows {
		if !slices.Contains(all, r.Table) {
			all = append(all, r.Table)
		}
	}
	return all
}

// stored are the rows of tables, with Kamailio's columns.
func stored(t testing.TB, s store.Store, tables ...string) ([]row, error) {
	t.Helper()
	var all []row
	for _, table := range tables {
		for r, err := range s.Rows(t.Context(), trace.Query{Table: table}) {
			if err != nil {
				return nil, err
			}
			if r.TimeUS() != int32(r.Time.Nanosecond()/1000) {
				t.Errorf("time_us %d of %s", r.TimeUS(), r.Time)
			}
			all = append(all, row{
				Table: table, Time: r.Time.UTC().Format("2006-01-02 15:04:05.000000"), CallID: string(r.CallID), TracedUser: string(r.TracedUser),
				Msg: string(r.Msg), Method: string(r.Method), Status: string(r.Status), FromIP: string(r.FromIP), ToIP: string(r.ToIP),
				FromTag: string(r.FromTag), ToTag: string(r.ToTag), Direction: r.Direction.String(),
			})
		}
	}
	return all, nil
}

// same fails the test unless both are the same rows, each as often.
func same(t testing.TB, got, want []row) {
	t.Helper()
	order := func(a, b row) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	got, want = slices.SortedFunc(slices.Values(got), order), slices.SortedFunc(slices.Values(want), order)
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%d rows, want %d", len(got), len(want))
	for i, rest := range [][]row{subtract(got, want), subtract(want, got)} {
		word := []string{"too many", "missing"}[i]
		t.Errorf("%d rows %s", len(rest), word)
		for _, r := range rest[:min(3, len(rest))] {
			r.Msg, _, _ = strings.Cut(r.Msg, "\r\n")
			t.Logf("%s: %+v", word, r)
		}
	}
}

// subtract is what is in a more often than in b.
func subtract(a, b []row) []row {
	n := make(map[row]int)
	for _, r := range b {
		n[r]++
	}
	var rest []row
	for _, r := range a {
		if n[r]--; n[r] < 0 {
			rest = append(rest, r)
		}
	}
	return rest
}

// postgres is the server that tests share; each has a database of its own.
var postgres = sync.OnceValues(func() (*pgserver.Server, error) {
	return pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
})

var databases atomic.Int64

// newDatabase makes an empty database.
func newDatabase(t *testing.T) string {
	t.Helper()
	s, err := postgres()
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("SIPTRACE_TEST_POSTGRES") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	name := fmt.Sprintf("parity_%d", databases.Add(1))
	if _, err := c.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.DatabaseURL(name)
}

func TestMain(m *testing.M) {
	code := m.Run()
	if databases.Load() > 0 {
		if s, err := postgres(); err == nil {
			if err := s.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}
