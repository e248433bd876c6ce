package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestSchema(t *testing.T) {
	t.Run("nothing is applied to a new database", func(t *testing.T) {
		schema, err := postgres.NewSchema(newDatabase(t))
		if err != nil {
			t.Fatal(err)
		}
		status, err := schema.Status(t.Context())
		if err != nil || status.Version != 0 || status.Current() || len(status.Tables) != 0 {
			t.Errorf("Status = %+v, %v", status, err)
		}
	})
	t.Run("what it prints does by hand what Apply does", func(t *testing.T) {
		address := newDatabase(t)
		schema, err := postgres.NewSchema(address)
		if err != nil {
			t.Fatal(err)
		}
		text, err := schema.Print()
		if err != nil {
			t.Fatal(err)
		}
		execute(t, address, text)
		status, err := schema.Status(t.Context())
		if err != nil || !status.Current() {
			t.Errorf("Status = %+v, %v, want it current", status, err)
		}
		if err := schema.Apply(t.Context()); err != nil {
			t.Error(err)
		}
		s := openStore(t, address, store.Options{NoSchema: true})
		write(t, s, at(today()))
	})
	t.Run("is applied once by many at once", func(t *testing.T) {
		address := newDatabase(t)
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			s := openStore(t, address, store.Options{})
			wg.Go(func() { errs[i] = s.Write(t.Context(), []trace.Event{at(today())}) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
	t.Run("is left alone when told so", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{NoSchema: true})
		if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "ctl schema apply") {
			t.Errorf("Ready = %v", err)
		}
		if got := column(t, address, `SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace`); len(got) > 0 {
			t.Errorf("made %v", got)
		}
	})
	t.Run("stores messages compressed with lz4", func(t *testing.T) {
		address := newDatabase(t)
		write(t, openStore(t, address, store.Options{}), at(today()))
		got := column(t, address, `SELECT attcompression::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = 'msg'`, day(today()))
		if strings.Join(got, "") != "l" {
			t.Errorf("compression %q, want l", got)
		}
	})
	t.Run("shows messages as text, whatever is in them", func(t *testing.T) {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{})
		for i, payload := range []string{"grüß", "a\x00b", "\xff"} {
			e := at(today())
			e.Payload, e.ID = []byte(payload), trace.ID{byte(i + 1)}
			write(t, s, e)
		}
		got := column(t, address, `SELECT msg FROM sip_trace_text ORDER BY length(msg), msg`)
		if want := `\377 grüß a\000b`; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestWrite_refusesATableWithoutTheKey(t *testing.T) {
	address := newDatabase(t)
	s := openStore(t, address, store.Options{})
	write(t, s, at(today()))
	execute(t, address, `CREATE TABLE unkeyed (LIKE sip_trace)`)
	e := at(today())
	e.Table = "unkeyed"
	err := s.Write(t.Context(), []trace.Event{e})
	if rejected, ok := err.(trace.Rejected); !ok || rejected[0].Reason != store.WrongColumns || !strings.Contains(err.Error(), "no unique key") {
		t.Errorf("Write = %v", err)
	}
	e.Table = day(today())
	err = s.Write(t.Context(), []trace.Event{e})
	if rejected, ok := err.(trace.Rejected); !ok || rejected[0].Reason != store.UnknownTable {
		t.Errorf("Write straight into a partition = %v", err)
	}
}

func TestWrite_tellsWhichColumnsDiffer(t *testing.T) {
	address := newDatabase(t)
	s := openStore(t, address, store.Options{})
	write(t, s, at(today()))
	execute(t, address, `CREATE TABLE mine (LIKE sip_trace INCLUDING ALL); ALTER TABLE mine DROP COLUMN node;
		ALTER TABLE mine ALTER callid TYPE varchar(255); ALTER TABLE mine ADD tenant text NOT NULL`)
	e := at(today())
	e.Table = "mine"
	err := s.Write(t.Context(), []trace.Event{e})
	for _, want := range []string{"node is missing", "callid is character varying, not text", "tenant has no default"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Write = %v, want %q in it", err, want)
		}
	}
}

func TestWrite_relaxedDoesNotWaitForTheDisk(t *testing.T) {
	for _, tt := range []struct {
		relaxed bool
		want    string
	}{{false, "on"}, {true, "off"}} {
		address := newDatabase(t)
		s := openStore(t, address, store.Options{Relaxed: tt.relaxed})
		applySchema(t, address)
		execute(t, address, `CREATE TABLE seen (setting text);
			CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN new; END $$;
			CREATE TRIGGER look BEFORE INSERT ON sip_trace FOR EACH ROW EXECUTE FUNCTION look()`)
		write(t, s, at(today()))
		if got := column(t, address, `SELECT setting FROM seen`); strings.Join(got, " ") != tt.want {
			t.Errorf("relaxed %t: synchronous_commit is %v", tt.relaxed, got)
		}
	}
}

func TestWrite_counts(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := openStore(t, newDatabase(t), store.Options{Registerer: reg})
	events := storetest.NewTraffic(1, today()).Events(10)
	write(t, s, events[:6]...)
	write(t, s, events...)
	bad := at(today())
	bad.Table = "nowhere"
	if err := s.Write(t.Context(), []trace.Event{bad, events[0]}); err == nil {
		t.Error("an unknown table was taken")
	}
	const want = `
# HELP siptrace_db_writer_batches_total Batches committed to the database.
# TYPE siptrace_db_writer_batches_total counter
siptrace_db_writer_batches_total 3
# HELP siptrace_db_writer_duplicates_total Rows skipped since the database had them already.
# TYPE siptrace_db_writer_duplicates_total counter
siptrace_db_writer_duplicates_total 7
# HELP siptrace_db_writer_rejected_total Events refused for good, by reason.
# TYPE siptrace_db_writer_rejected_total counter
siptrace_db_writer_rejected_total{reason="unknown table"} 1
# HELP siptrace_db_writer_rows_total Rows committed to the database, without those that were there already.
# TYPE siptrace_db_writer_rows_total counter
siptrace_db_writer_rows_total 10
`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want), "siptrace_db_writer_batches_total",
		"siptrace_db_writer_duplicates_total", "siptrace_db_writer_rejected_total", "siptrace_db_writer_rows_total")
	if err != nil {
		t.Error(err)
	}
}
