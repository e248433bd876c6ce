package sqlite_test

import (
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/sqlite"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestOpen_keepsASecondWriterAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	s := openStore(t, path, store.Options{})
	_, err := sqlite.Open(t.Context(), path, store.Options{})
	if err == nil || !strings.Contains(err.Error(), "writes it already") {
		t.Errorf("a second Open: %v", err)
	}
	if err := s.Write(t.Context(), storetest.NewTraffic(1, time.Now()).Events(3)); err != nil {
		t.Errorf("the first writer, after that: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, path, store.Options{})
}

func TestOpen_goesOnAfterAWriterWasKilled(t *testing.T) {
	const helper = "SIPTRACE_TEST_WRITE_AND_DIE"
	if path := os.Getenv(helper); path != "" {
		s := openStore(t, path, store.Options{})
		if err := s.Write(t.Context(), storetest.NewTraffic(1, time.Now()).Events(3000)); err != nil {
			t.Fatal(err)
		}
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		_ = self.Kill()
		select {} // killed here
	}
	path := filepath.Join(t.TempDir(), "trace.db")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), helper+"="+path)
	var killed *exec.ExitError
	if out, err := cmd.CombinedOutput(); !errors.As(err, &killed) || strings.Contains(string(out), "FAIL") {
		t.Fatalf("helper: %v\n%s", err, out)
	}
	n := 0
	for _, err := range openStore(t, path, store.Options{}).Rows(t.Context(), trace.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3000 {
		t.Errorf("%d rows, want 3000", n)
	}
}

func TestOpenReader(t *testing.T) {
	t.Run("says that a file does not exist and does not make it", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trace.db")
		if _, err := sqlite.OpenReader(path, store.Options{}); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("OpenReader = %v", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the file is there now")
		}
	})
	t.Run("reads beside the writer and does not write", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trace.db")
		w := openStore(t, path, store.Options{})
		events := storetest.NewTraffic(1, time.Now()).Events(20)
		if err := w.Write(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		r, err := sqlite.OpenReader(path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		n := 0
		for _, err := range r.Find(t.Context(), trace.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			more := storetest.NewTraffic(uint64(n), time.Now().Add(-time.Hour)).Events(1)
			if err := w.Write(t.Context(), more); err != nil { // while the reader reads
				t.Fatal(err)
			}
		}
		if n != len(events) {
			t.Errorf("%d events, want %d", n, len(events))
		}
		if err := r.Write(t.Context(), events); !errors.Is(err, trace.ErrPermanent) {
			t.Errorf("Write = %v, want it refused", err)
		}
		if err := r.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOpen_errors(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) string{
		"a directory that is not there": func(t *testing.T) string { return filepath.Join(t.TempDir(), "none", "trace.db") },
		"a directory":                   func(t *testing.T) string { return t.TempDir() },
		"no file at all":                func(*testing.T) string { return ":memory:" },
		"no name":                       func(*testing.T) string { return "" },
		"another kind of file": func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "trace.db")
			if err := os.WriteFile(path, []byte(strings.Repeat("this is no database. ", 100)), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := prepare(t)
			s, err := sqlite.Open(t.Context(), path, store.Options{})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), "sqlite") || !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not say where", err)
			}
		})
	}
}

func TestOpen_takesAnyFileName(t *testing.T) {
	for _, name := range []string{"a b.db", "what?mode=ro", "100%.db", "#1.db", "a&b=c.db", "ünï.db", "'quoted'.db", "%41.db"} {
		dir := t.TempDir()
		s := openStore(t, filepath.Join(dir, name), store.Options{})
		if err := s.Write(t.Context(), storetest.NewTraffic(1, time.Now()).Events(1)); err != nil {
			t.Error(err)
		}
		if err := s.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestStore_isOfNoUseWhenClosed(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "trace.db"), store.Options{})
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(t.Context(), storetest.NewTraffic(1, time.Now()).Events(1)); err == nil || errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write = %v", err)
	}
	for _, err := range s.Find(t.Context(), trace.Query{}) {
		if err == nil {
			t.Error("found an event")
		}
	}
}

func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	openStore(t, path, store.Options{})
	for pragma, want := range map[string]string{"journal_mode": "wal", "page_size": "8192"} {
		if got := values(t, path, "PRAGMA "+pragma); got != want {
			t.Errorf("%s = %s, want %s", pragma, got, want)
		}
	}
}

// The planner must not walk the key through all of time for a Call-ID.
func TestFind_usesTheIndexes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	openStore(t, path, store.Options{})
	for _, tt := range []struct {
		q    trace.Query
		want string
	}{
		{trace.Query{CallID: "x"}, "SEARCH t USING INDEX sip_trace_callid"},
		{trace.Query{CallID: "x", From: time.Now(), To: time.Now()}, "SEARCH t USING INDEX sip_trace_callid"},
		{trace.Query{From: time.Now()}, "SEARCH t USING INDEX sqlite_autoindex_sip_trace_1"},
		{trace.Query{}, "SCAN t USING INDEX sqlite_autoindex_sip_trace_1"},
	} {
		p := store.Page{Query: tt.q, Size: 10, Events: true, Desc: true}
		query, args := p.SQL(sqlite.Dialect(), `"sip_trace"`)
		plan := values(t, path, "EXPLAIN QUERY PLAN "+query, args...)
		if !strings.Contains(plan, tt.want) {
			t.Errorf("%+v: plan %s, want %s", tt.q, plan, tt.want)
		}
	}
}

func TestSchema(t *testing.T) {
	t.Run("what it prints does by hand what Apply does", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trace.db")
		schema, err := sqlite.NewSchema(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := schema.Print()
		if err != nil {
			t.Fatal(err)
		}
		if status, err := schema.Status(t.Context()); err != nil || status.Version != 0 {
			t.Errorf("before: Status = %+v, %v", status, err)
		}
		execute(t, path, text)
		if status, err := schema.Status(t.Context()); err != nil || !status.Current() || len(status.Tables) != 1 {
			t.Errorf("after: Status = %+v, %v", status, err)
		}
		if err := schema.Apply(t.Context()); err != nil {
			t.Error(err)
		}
		s := openStore(t, path, store.Options{NoSchema: true})
		if err := s.Write(t.Context(), storetest.NewTraffic(1, time.Now()).Events(1)); err != nil {
			t.Error(err)
		}
	})
	t.Run("another table is like sip_trace but for the name", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "trace.db")
		openStore(t, path, store.Options{})
		schema, err := sqlite.NewSchema(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.CreateTable(t.Context(), "other"); err != nil {
			t.Fatal(err)
		}
		const query = `SELECT sql FROM sqlite_schema WHERE tbl_name IN ($1, $1 || '_text') AND sql IS NOT NULL ORDER BY name`
		got, want := values(t, path, query, "other"), values(t, path, query, "sip_trace")
		if got != strings.ReplaceAll(want, "sip_trace", "other") || strings.Count(got, "CREATE") != 3 {
			t.Errorf("got %s", got)
		}
	})
}

// values runs a query and returns its last column as text.
func values(t *testing.T, path, query string, args ...any) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var text string
	dest := make([]any, len(columns))
	for i := range dest {
		dest[i] = new(any)
	}
	dest[len(dest)-1] = &text
	var list []string
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		list = append(list, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "; ")
}
