package postgres_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// asWriter makes a role that may do no more than a writer has to, and returns
// the database's URL for it.
func asWriter(t *testing.T, address, schema string, grants ...string) string {
	t.Helper()
	role := "writer_of_" + schema
	execute(t, address, "CREATE ROLE "+role+" LOGIN PASSWORD 'w'")
	execute(t, address, "GRANT USAGE ON SCHEMA "+schema+" TO "+role)
	for _, g := range grants {
		execute(t, address, "GRANT "+g+" TO "+role)
	}
	return change(t, address, func(u *url.URL) { u.User = url.UserPassword(role, "w") })
}

// schemaOf is the schema that newDatabase made.
func schemaOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("search_path")
}

func TestWrite_needsNoRightToMakeTables(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	writer := asWriter(t, address, schemaOf(t, address),
		"SELECT, INSERT ON sip_trace, trace_tables, siptrace_schema",
		"EXECUTE ON FUNCTION siptrace_add_partition")
	s := openStore(t, writer, store.Options{CreateTables: true})
	e := at(today())
	for range 2 {
		write(t, s, e, at(today().AddDate(0, 0, -3)))
	}
	if err := s.Maintain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := len(partitions(t, address, "sip_trace")); got != 4 {
		t.Errorf("%d partitions, want 4", got)
	}
	e.Table = "not_allowed"
	var failure *postgres.Error
	if err := s.Write(t.Context(), []trace.Event{e}); !errors.As(err, &failure) || failure.Class != store.ClassPermission {
		t.Errorf("Write to a table it may not make: %v", err)
	}
}

func TestWrite_saysWhichRightIsMissing(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	writer := asWriter(t, address, schemaOf(t, address), "SELECT ON sip_trace, trace_tables, siptrace_schema")
	s := openStore(t, writer, store.Options{})
	err := s.Write(t.Context(), []trace.Event{at(today())})
	if err == nil || !strings.Contains(err.Error(), "permission denied for function siptrace_add_partition") {
		t.Errorf("Write = %v", err)
	}
	execute(t, address, "GRANT EXECUTE ON FUNCTION siptrace_add_partition TO writer_of_"+schemaOf(t, address))
	err = s.Write(t.Context(), []trace.Event{at(today())})
	if err == nil || !strings.Contains(err.Error(), "permission denied for table sip_trace") || errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write = %v", err)
	}
	execute(t, address, "GRANT INSERT ON sip_trace TO writer_of_"+schemaOf(t, address))
	write(t, s, at(today()))
}

func TestOpen_goesOnWithoutTheRightToApplyTheSchema(t *testing.T) {
	address := newDatabase(t)
	s := openStore(t, asWriter(t, address, schemaOf(t, address)), store.Options{})
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "table sip_trace does not exist; ctl schema apply") {
		t.Errorf("Ready = %v", err)
	}
	var e *postgres.Error
	if err := s.Write(t.Context(), []trace.Event{at(today())}); !errors.As(err, &e) || e.Class != store.ClassSchema || errors.Is(err, trace.ErrPermanent) {
		t.Errorf("Write = %v, want it to be tried again", err)
	}
}

func TestWrite_readOnlyServerIsTemporary(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	standby := change(t, address, func(u *url.URL) {
		q := u.Query()
		q.Set("default_transaction_read_only", "on")
		u.RawQuery = q.Encode()
	})
	s := openStore(t, standby, store.Options{})
	var e *postgres.Error
	if err := s.Write(t.Context(), []trace.Event{at(today())}); !errors.As(err, &e) || e.Class != store.ClassConnection {
		t.Errorf("Write = %v, want it to be tried elsewhere", err)
	}
}

func applySchema(t *testing.T, address string) {
	t.Helper()
	schema, err := postgres.NewSchema(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
}
