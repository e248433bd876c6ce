package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// hostile are table names from someone who means ill, or cannot type.
var hostile = []string{
	`sip_trace; DROP TABLE sip_trace`,
	`sip_trace"; DROP TABLE sip_trace; --`,
	`"sip_trace"`,
	`'sip_trace'`,
	"`sip_trace`",
	`[sip_trace]`,
	`main.sip_trace`,
	`pg_catalog.pg_class`,
	`../sip_trace`,
	`sip trace`,
	" sip_trace",
	"sip_trace ",
	"sip_trace\n",
	"sip_trace\x00",
	"SIP_TRACE",
	"_sip_trace",
	"1sip_trace",
	"sip-trace",
	"sip_trace(msg)",
	"sip_trace$1",
	"sip_trace/**/",
	"%s",
	"söp_trace",
	"ѕip_trace", // the first letter is Cyrillic
	"sip_trace\xff",
	"a" + strings.Repeat("b", 40),
	strings.Repeat("x", 100_000),
}

func testTables(t *testing.T, open Open) {
	for _, create := range []bool{false, true} {
		t.Run("refuses hostile table names and writes the rest", func(t *testing.T) {
			s := open(t, store.Options{CreateTables: create})
			events := []trace.Event{event("first@b", 0)}
			var want []int
			for i, name := range hostile {
				events = append(events, event("x@b", i+1, inTable(name)))
				want = append(want, i+1)
			}
			events = append(events, event("last@b", len(events)))
			wantRefused(t, writeRefused(t, s, events...), store.BadTableName, want...)
			wantFound(t, s, trace.Query{}, events[0], events[len(events)-1])
			wantTables(t, s, store.DefaultTable)
		})
	}
	t.Run("refuses hostile table names in queries", func(t *testing.T) {
		s := open(t, store.Options{})
		for _, name := range hostile {
			for _, err := range s.Find(t.Context(), trace.Query{Table: name}) {
				if !errors.Is(err, store.ErrTableName) {
					t.Errorf("Find in %q: %v", name, err)
				}
			}
		}
	})
	t.Run("refuses events for a table that does not exist and writes the rest", func(t *testing.T) {
		s := open(t, store.Options{})
		events := []trace.Event{event("a@b", 0), event("c@d", 1, inTable("nowhere")), event("e@f", 2), event("g@h", 3, inTable("nowhere"))}
		for range 2 {
			wantRefused(t, writeRefused(t, s, events...), store.UnknownTable, 1, 3)
		}
		wantFound(t, s, trace.Query{}, events[0], events[2])
	})
	t.Run("refuses events for a table of other columns", func(t *testing.T) {
		s := open(t, store.Options{})
		s.Exec(t, `CREATE TABLE elsewhere (id integer, callid text)`)
		wantRefused(t, writeRefused(t, s, event("a@b", 0, inTable("elsewhere")), event("c@d", 1)), store.WrongColumns, 0)
		wantFound(t, s, trace.Query{}, event("c@d", 1))
	})
	t.Run("does not take siptrace's own tables and views for trace tables", func(t *testing.T) {
		s := open(t, store.Options{CreateTables: true})
		for _, name := range []string{"trace_tables", "sip_trace_text", store.VersionTable} {
			rejected := writeRefused(t, s, event("a@b", 0, inTable(name)))
			if len(rejected) != 1 {
				t.Errorf("%s: %v", name, rejected)
			}
		}
	})
	t.Run("writes to a table that was made for it, with the same promises", func(t *testing.T) {
		s := open(t, store.Options{})
		for range 2 {
			if err := s.Schema.CreateTable(t.Context(), "customer_7"); err != nil {
				t.Fatal(err)
			}
		}
		e := event("a@b", 0, users("alice"), inTable("customer_7"))
		for range 2 {
			write(t, s, e, event("c@d", 1))
		}
		wantFound(t, s, trace.Query{Table: "customer_7"}, e)
		wantFound(t, s, trace.Query{}, event("c@d", 1))
		wantTables(t, s, "customer_7", store.DefaultTable)
	})
	t.Run("makes a table that an event names, if it may", func(t *testing.T) {
		s := open(t, store.Options{CreateTables: true})
		e := event("a@b", 0, inTable("customer_8"))
		write(t, s, e, event("c@d", 1))
		write(t, s, e)
		wantFound(t, s, trace.Query{Table: "customer_8"}, e)
		wantTables(t, s, "customer_8", store.DefaultTable)
	})
	t.Run("makes no table of a name that is kept for other things", func(t *testing.T) {
		s := open(t, store.Options{CreateTables: true})
		for _, name := range []string{"sip_trace_p20300101", "sip_trace_p20300101_23", "other_text", "sip_trace_callid", "pg_other", "sqlite_other"} {
			if err := s.Schema.CreateTable(t.Context(), name); err == nil {
				t.Errorf("CreateTable made %s", name)
			}
			if rejected := writeRefused(t, s, event("a@b", 0, inTable(name))); len(rejected) != 1 {
				t.Errorf("%s: %v", name, rejected)
			}
		}
		wantTables(t, s, store.DefaultTable)
	})
	t.Run("makes no more tables than a database can bear", func(t *testing.T) {
		s := open(t, store.Options{CreateTables: true})
		s.Exec(t, `INSERT INTO trace_tables (name) WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT 't' || i FROM n`)
		wantRefused(t, writeRefused(t, s, event("a@b", 0, inTable("one_more")), event("c@d", 1)), store.UnknownTable, 0)
		wantFound(t, s, trace.Query{}, event("c@d", 1))
	})
	t.Run("writes to the table it is told to when an event names none", func(t *testing.T) {
		s := open(t, store.Options{Table: "mine", CreateTables: true})
		e := event("a@b", 0)
		write(t, s, e)
		wantFound(t, s, trace.Query{}, e)
		wantFound(t, s, trace.Query{Table: store.DefaultTable})
	})
	t.Run("goes on when a table is dropped and made again", func(t *testing.T) {
		s := open(t, store.Options{})
		if err := s.Schema.CreateTable(t.Context(), "brief"); err != nil {
			t.Fatal(err)
		}
		e := event("a@b", 0, inTable("brief"))
		write(t, s, e)
		s.Exec(t, `DROP VIEW brief_text`)
		s.Exec(t, `DROP TABLE brief`)
		s.Exec(t, `DELETE FROM trace_tables WHERE name = 'brief'`)
		wantRefused(t, writeRefused(t, s, e, event("c@d", 1)), store.UnknownTable, 0)
		wantFound(t, s, trace.Query{}, event("c@d", 1))
	})
}

func wantTables(t *testing.T, s Database, want ...string) {
	t.Helper()
	status, err := s.Schema.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(status.Tables, " "); got != strings.Join(want, " ") {
		t.Errorf("tables %s, want %s", got, want)
	}
}
