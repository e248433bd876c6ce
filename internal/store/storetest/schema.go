package storetest

import (
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
)

func testSchema(t *testing.T, open Open) {
	t.Run("is current when it has been applied, and stays so", func(t *testing.T) {
		s := open(t, store.Options{})
		for range 2 {
			status, err := s.Schema.Status(t.Context())
			if err != nil || !status.Current() || status.Version == 0 {
				t.Fatalf("Status = %+v, %v, want the newest version", status, err)
			}
			if err := s.Schema.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("prints SQL that can be read", func(t *testing.T) {
		s := open(t, store.Options{})
		text, err := s.Schema.Print()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"CREATE TABLE", "sip_trace", "trace_tables", store.VersionTable} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in\n%s", want, text)
			}
		}
		if strings.Contains(text, "+goose") {
			t.Error("goose's own marks are in it")
		}
	})
	t.Run("has a view for people", func(t *testing.T) {
		s := open(t, store.Options{})
		write(t, s, event("a@b", 0), event("", 1, payload([]byte("\x00\xff"))))
		s.Exec(t, `SELECT time_stamp, node, direction, fromip, toip, method, status, callid, cseq, from_user, to_user, ruri_user,
			fromtag, totag, traced_user, correlation_id, msg FROM sip_trace_text`)
	})
}
