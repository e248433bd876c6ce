package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-452fa805/siptrace/internal/store"
)

func TestExplain(t *testing.T) {
	const where = "postgres db:5432/siptrace: "
	for _, tt := range []struct {
		name  string
		err   error
		class string
		want  string
		judge verdict
	}{
		{"no host", &net.DNSError{Err: "no such host", Name: "db.invalid", IsNotFound: true}, store.ClassConnection,
			`no such host "db.invalid"; check --store`, giveBack},
		{"deadline", fmt.Errorf("timeout: %w", context.DeadlineExceeded), store.ClassConnection, "no answer in time", giveBack},
		{"closed", io.ErrUnexpectedEOF, store.ClassConnection, "wrapped: unexpected EOF", giveBack},
		{"password", sqlstate("28P01", ""), store.ClassPermission, `password refused for user "w"; check --store`, giveBack},
		{"pg_hba", sqlstate("28000", `no pg_hba.conf entry for host "::1"`), store.ClassPermission,
			`user "w" refused: no pg_hba.conf entry for host "::1"; check --store and pg_hba.conf`, giveBack},
		{"right", sqlstate("42501", "permission denied for table x"), store.ClassPermission,
			`permission denied for table x; grant user "w" what it lacks`, giveBack},
		{"disk full", sqlstate("53100", "could not extend file"), store.ClassResources, "disk full: could not extend file", giveBack},
		{"out of memory", sqlstate("53200", "out of memory"), store.ClassResources, "out of memory [53200]", giveBack},
		{"too many", sqlstate("53300", "sorry, too many clients already"), store.ClassResources,
			"sorry, too many clients already; raise max_connections or use fewer connections", giveBack},
		{"I/O", sqlstate("58030", "could not read block"), store.ClassResources, "could not read block [58030]", giveBack},
		{"going", sqlstate("57P01", "terminating connection"), store.ClassConnection, "terminating connection [57P01]", giveBack},
		{"coming", sqlstate("57P03", "the database system is starting up"), store.ClassConnection, "the database system is starting up [57P03]", giveBack},
		{"lost", sqlstate("08006", "gone"), store.ClassConnection, "gone [08006]", giveBack},
		{"serialization", sqlstate("40001", "could not serialize"), store.ClassConflict, "could not serialize [40001]", again},
		{"deadlock", sqlstate("40P01", "deadlock detected"), store.ClassConflict, "deadlock detected [40P01]", again},
		{"lock", sqlstate("55P03", "lock timeout"), store.ClassConflict, "lock timeout [55P03]", again},
		{"no table", sqlstate("42P01", "relation does not exist"), store.ClassSchema, "relation does not exist; ctl schema apply makes what is missing", stale},
		{"no column", sqlstate("42703", "column does not exist"), store.ClassSchema, "column does not exist [42703]", stale},
		{"type", sqlstate("42804", "type"), store.ClassSchema, "type [42804]", stale},
		{"COPY format", sqlstate("22P04", "row field count is 3"), store.ClassSchema, "row field count is 3 [22P04]", stale},
		{"bad value", sqlstate("22021", "invalid byte sequence"), store.ClassOther, "invalid byte sequence [22021]", careful},
		{"duplicate", sqlstate("23505", "duplicate key"), store.ClassOther, "duplicate key [23505]", careful},
		{"check", sqlstate("23514", "violates check constraint"), store.ClassOther, "violates check constraint [23514]", careful},
		{"index row", sqlstate("54000", "index row size"), store.ClassOther, "index row size [54000]", careful},
		{"no partition", &pgconn.PgError{Code: "23514", Message: "keine Partition", Routine: "ExecFindPartition"}, store.ClassConflict,
			"keine Partition [23514]", noPartition},
		{"trigger", sqlstate("P0001", "not this one"), store.ClassOther, "not this one [P0001]", careful},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wrapped := fmt.Errorf("wrapped: %w", tt.err)
			err := explain(wrapped, "db:5432/siptrace", "w")
			var e *Error
			if !errors.As(err, &e) || e.Class != tt.class || !errors.Is(err, tt.err) {
				t.Errorf("explain = %#v, want class %s", err, tt.class)
			}
			if err.Error() != where+tt.want {
				t.Errorf("got  %s\nwant %s", err, where+tt.want)
			}
			if got := judge(wrapped); got != tt.judge {
				t.Errorf("judge = %d, want %d", got, tt.judge)
			}
			if again := explain(fmt.Errorf("again: %w", err), "other", "other"); again.Error() != "again: "+err.Error() {
				t.Errorf("explained twice: %v", again)
			}
		})
	}
	if explain(nil, "", "") != nil {
		t.Error("nil explained")
	}
}

func sqlstate(code, message string) error { return &pgconn.PgError{Code: code, Message: message} }

func TestLine(t *testing.T) {
	for where, want := range map[string]int{
		"":                                    0,
		"COPY sip_trace, line 3777":           3777,
		"COPY sip_trace, line 12, column msg": 12,
		`COPY trace_2026, line 5, column callid: "x, 99"`:                5,
		"COPY sip_trace, Zeile 8, Spalte msg":                            8,
		"COPY sip_trace, 行 9":                                            9,
		"PL/pgSQL function f() line 3 at RAISE\nCOPY sip_trace, line 44": 44,
		"PL/pgSQL function f() line 3 at RAISE":                          0,
		"COPY sip_trace":                                                 0,
		"COPY sip_trace, line ":                                          0,
		"COPY t, line 99999999999999999999":                              0,
	} {
		if got := line(fmt.Errorf("w: %w", &pgconn.PgError{Where: where})); got != want {
			t.Errorf("line of %q = %d, want %d", where, got, want)
		}
	}
	if got := line(io.EOF); got != 0 {
		t.Errorf("line of an end of file = %d", got)
	}
}
