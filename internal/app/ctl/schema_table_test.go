package ctl

import (
	"bytes"
	"database/sql"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestSchemaStatus_showsWhatWasDroppedAndApplyMakesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	run := func(args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), append(args, "--store", "sqlite:"+path), strings.NewReader(""), &stdout, &stderr); code != 0 {
			t.Fatalf("%v: exit code %d, %s", args, code, &stderr)
		}
		return stdout.String()
	}
	whole := run("schema", "apply")
	if want := "version 1, the newest\ntables  sip_trace\n"; whole != want {
		t.Errorf("got %q, want %q", whole, want)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `DROP TABLE sip_trace`); err != nil {
		t.Fatal(err)
	}
	if got := run("schema", "status"); !strings.Contains(got, "missing table sip_trace; make it anew, empty, with: ") || strings.Contains(got, "tables") {
		t.Errorf("status %q", got)
	}
	if got := run("schema", "apply"); got != whole {
		t.Errorf("apply %q, want %q", got, whole)
	}
}

func TestSchemaCreateTable_makesATableThatTakesEvents(t *testing.T) {
	address := "sqlite:" + filepath.Join(t.TempDir(), "trace.db")
	run := func(args ...string) (code int, out, errors string) {
		var stdout, stderr bytes.Buffer
		code = Run(t.Context(), append(append([]string{"schema"}, args...), "--store", address), strings.NewReader(""), &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	if code, _, words := run("create-table", "sip_trace_acme"); code != 1 || !strings.Contains(words, "schema apply") {
		t.Errorf("without a schema: exit code %d, %q, want 1 and what to do", code, words)
	}
	if code, _, words := run("apply"); code != 0 {
		t.Fatal(words)
	}
	for range 2 { // a second time does no harm
		if code, out, words := run("create-table", "sip_trace_acme"); code != 0 || out != "sip_trace_acme\n" {
			t.Fatalf("exit code %d, %q, %q", code, out, words)
		}
	}
	for _, bad := range []string{"Sip", "sip trace", "x_text", "pg_x", "x_p20260101", "1x"} {
		if code, _, _ := run("create-table", bad); code != 2 {
			t.Errorf("%q: exit code %d, want 2", bad, code)
		}
	}
	s, err := open.Writer(t.Context(), address, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	e := trace.Event{
		Time: time.Now(), Type: trace.TypeSIP, Transport: trace.UDP, Table: "sip_trace_acme",
		Src: netip.MustParseAddrPort("192.0.2.1:5060"), Dst: netip.MustParseAddrPort("192.0.2.2:5060"),
		Payload: []byte("BYE sip:a@b SIP/2.0\r\nCall-ID: one\r\nCSeq: 1 BYE\r\n\r\n"), TracedUsers: []string{"sip:alice@example.com"},
	}
	e.Identify()
	if err := s.Write(t.Context(), []trace.Event{e}); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for r, err := range s.Rows(t.Context(), trace.Query{Table: "sip_trace_acme", CallID: "one"}) {
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Msg, e.Payload) {
			t.Errorf("msg %q", r.Msg)
		}
		rows++
	}
	if rows != 2 {
		t.Errorf("%d rows, want the event's and its user's", rows)
	}
}
