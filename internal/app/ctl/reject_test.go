package ctl

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func inTable(name string) func(*trace.Event) { return func(e *trace.Event) { e.Table = name } }

// giveUp puts a reject in the stream, as a worker does.
func (b *bed) giveUp(t *testing.T, r bus.Reject) {
	t.Helper()
	if err := bus.NewRejects(b.conn).Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// rejected are rejects of every sort.
func rejected(t *testing.T, b *bed) {
	t.Helper()
	a := captured("a@pbx", "INVITE", 0, inTable("lab"), func(e *trace.Event) {
		e.TracedUsers, e.Rule, e.Flags, e.Direction = []string{"alice"}, "fraud", trace.UsersOnly, trace.In
	})
	bye := captured("b@pbx", "BYE", time.Second, inTable("lab"))
	old := captured("c@pbx", "OPTIONS", -20*365*24*time.Hour)
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "unknown table", Detail: "table lab does not exist", Event: &a})
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "unknown table", Detail: "table lab does not exist", Event: &bye})
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "time out of range", Event: &old})
	b.giveUp(t, bus.Reject{Worker: "fwd-hep-homer-9060-01234567", Reason: "too large", Detail: strings.Repeat("long ", 40), Event: &a})
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "undecodable frame", Detail: "bad\x1b[31m frame", Raw: []byte("noise \x00\x01")})
}

func TestReject_listShowAndCount(t *testing.T) {
	b := newBed(t)
	_, said := b.must(t, "reject", "list")
	contains(t, said, "no rejects")
	rejected(t, b)
	list, _ := b.must(t, "reject", "list")
	golden(t, "reject-list.txt", blur(list))
	counts, _ := b.must(t, "reject", "list", "--count")
	golden(t, "reject-count.txt", blur(counts))
	show, _ := b.must(t, "reject", "show", "1", "--utc")
	golden(t, "reject-show.txt", blur(show))
	raw, _ := b.must(t, "reject", "show", "5", "--utc")
	golden(t, "reject-show-raw.txt", blur(raw))

	for _, tt := range []struct{ args, want string }{
		{"--worker fwd-hep-homer-9060-01234567", "4"},
		{"--call-id b@pbx", "2"},
		{"--since 1h --call-id c@pbx", "3"},
		{"--limit 1", "5"},
	} {
		out, _ := b.must(t, append([]string{"reject", "list", "--json"}, strings.Fields(tt.args)...)...)
		var v struct {
			Seq   json.Number
			Event map[string]any
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil || v.Seq.String() != tt.want {
			t.Errorf("list %s: %v, %s; want the reject %s alone", tt.args, err, out, tt.want)
		}
	}
	out, _ := b.must(t, "reject", "list", "--count", "--json", "--reason", "unknown table")
	var v rejectCount
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Count != 2 || v.Worker != "db-writer" {
		t.Errorf("counted %s, %v", out, err)
	}
	if _, said := b.must(t, "reject", "list", "--limit", "2"); !strings.Contains(said, "the newest 2 of 5") {
		t.Errorf("said %s", said)
	}
	if code, _, said := b.ctl(t, "reject", "show", "99"); code != 1 || !strings.Contains(said, "reject 99: no such reject") {
		t.Errorf("show 99: exit %d, said %s", code, said)
	}
}

func TestReject_retryWritesToTheDatabaseAlone(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db kindOfDatabase) {
		b := newBed(t)
		good, lab := captured("good", "INVITE", 0), captured("lab", "INVITE", 1, inTable("lab"))
		missing := captured("missing", "INVITE", 2, inTable("missing"))
		b.publish(t, good, lab, missing)
		b.work(t, db.url, "db-writer")
		frames := b.lastFrame(t)
		b.giveUp(t, bus.Reject{Worker: "fwd-hep-homer-9060-01234567", Reason: "too large", Event: &good})
		b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "undecodable frame", Raw: []byte("noise")})

		code, _, said := b.ctl(t, "reject", "retry", "--to", db.url)
		if code != 1 {
			t.Errorf("nothing is better yet: exit %d, want 1", code)
		}
		contains(t, said, "refused again, and left: 2 unknown table (")

		s, err := open.Schema(db.url)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.CreateTable(t.Context(), "lab"); err != nil {
			t.Fatal(err)
		}
		code, _, said = b.ctl(t, "reject", "retry", "--to", db.url)
		if code != 1 {
			t.Errorf("one is refused again: exit %d, want 1", code)
		}
		contains(t, said, "1 reject taken and removed", "1 reject left: no events", "1 reject left: of workers with another target",
			"refused again, and left: 1 unknown table (table missing does not exist)")
		if rows := rowsOf(t, db.url, "lab"); len(rows) != 1 || rows[0].EventID != lab.ID {
			t.Errorf("the table holds %d rows, want the one that was rejected", len(rows))
		}

		_, said = b.must(t, "reject", "retry", "--to", db.url, "--create-tables", "--reason", store.UnknownTable)
		contains(t, said, "1 reject taken and removed")
		out, _ := b.must(t, "reject", "list", "--count")
		if strings.Contains(out, store.UnknownTable) || !strings.Contains(out, "undecodable frame") || !strings.Contains(out, "too large") {
			t.Errorf("left are\n%s", out)
		}
		if n := b.lastFrame(t); n != frames {
			t.Errorf("the stream has %d frames, want %d: nobody else is to see them again", n, frames)
		}
	})
}

func TestReject_retryToTheCollectorThatRefused(t *testing.T) {
	b := newBed(t)
	c := newCollector(t, nil)
	d, err := forward.ParseDestination(c.url())
	if err != nil {
		t.Fatal(err)
	}
	mine, other := captured("mine", "INVITE", 0), captured("other", "INVITE", 1)
	b.giveUp(t, bus.Reject{Worker: "fwd-" + d.Name(), Reason: "too large", Event: &mine})
	b.giveUp(t, bus.Reject{Worker: "fwd-hep-homer-9060-01234567", Reason: "too large", Event: &other})
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: store.UnknownTable, Event: &other})
	_, said := b.must(t, "reject", "retry", "--to", c.url())
	contains(t, said, "1 reject taken and removed", "2 rejects left: of workers with another target")
	await(t, "it arrives", func() bool { return len(c.got()) == 1 })
	if c.got()[0] != string(mine.Payload) {
		t.Errorf("arrived %q", c.got()[0])
	}
	b.must(t, "reject", "retry", "--to", c.url(), "--worker", "fwd-hep-homer-9060-01234567")
	await(t, "the other one arrives", func() bool { return len(c.got()) == 2 })
}

func TestReject_retryViaTheStreamReachesTheDatabaseAndNoCollector(t *testing.T) {
	b := newBed(t)
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	b.publish(t, captured("good", "INVITE", 0), captured("lab", "INVITE", 1, inTable("lab")))
	b.work(t, url, "db-writer")
	s, err := open.Schema(url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.CreateTable(t.Context(), "lab"); err != nil {
		t.Fatal(err)
	}
	c := newCollector(t, nil)
	_, said := b.must(t, "reject", "retry", "--via-stream")
	contains(t, said, "1 event back in the stream")
	b.work(t, url, "db-writer")
	if rows := rowsOf(t, url, "lab"); len(rows) != 1 {
		t.Errorf("the table holds %d rows, want 1", len(rows))
	}
	if _, said := b.must(t, "replay", "--to", c.url(), "--from-seq", "2"); !strings.Contains(said, "1 event left out: a rule keeps them") {
		t.Errorf("a collector would get it: %s", said)
	}
	if _, said := b.must(t, "reject", "list"); !strings.Contains(said, "no rejects") {
		t.Errorf("said %s", said)
	}
}

func TestReject_retryOfChosenNumbers(t *testing.T) {
	b := newBed(t)
	one, two := captured("one", "INVITE", 0), captured("two", "INVITE", 1)
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "x", Event: &one})
	b.giveUp(t, bus.Reject{Worker: "db-writer", Reason: "x", Event: &two})
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	b.must(t, "reject", "retry", "2", "--to", url)
	if rows := rowsOf(t, url, "sip_trace"); len(rows) != 1 || rows[0].EventID != two.ID {
		t.Errorf("%d rows, want the second reject alone", len(rows))
	}
	if out, _ := b.must(t, "reject", "list", "--json"); !strings.HasPrefix(out, `{"detail":"","event":`) || strings.Count(out, "\n") != 1 {
		t.Errorf("left are\n%s", out)
	}
	if code, _, said := b.ctl(t, "reject", "retry", "2", "--to", url); code != 1 || !strings.Contains(said, "no such reject") {
		t.Errorf("one that is gone: exit %d, said %s", code, said)
	}
}

func TestReject_purgeAsksFirst(t *testing.T) {
	b := newBed(t)
	rejected(t, b)
	code, _, said := b.ctl(t, "reject", "purge", "--reason", "unknown table")
	if code != 1 || !strings.Contains(said, "2 rejects would be removed for good; do it with --yes") {
		t.Errorf("purge without --yes: exit %d, said %s", code, said)
	}
	_, said = b.must(t, "reject", "purge", "--reason", "unknown table", "--yes")
	contains(t, said, "2 rejects removed")
	out, _ := b.must(t, "reject", "list", "--json")
	if strings.Count(out, "\n") != 3 || strings.Contains(out, "unknown table") {
		t.Errorf("left are\n%s", out)
	}
	b.must(t, "reject", "purge", "--yes")
	_, said = b.must(t, "reject", "purge")
	contains(t, said, "no such rejects")
}

func TestReject_wrongUse(t *testing.T) {
	for _, args := range []string{
		"", "retry", "retry --to pcap:x", "retry --to nonsense", "retry --to hep+udp://h --create-tables", "retry --to sqlite:x --via-stream",
		"retry --via-stream --worker fwd-hep-x-9060-01234567", "show", "show x", "list --since yesterday",
	} {
		if code, _, said := run(t, "", append([]string{"reject"}, strings.Fields(args)...)...); code != 2 {
			t.Errorf("reject %s: exit %d, want 2; said %s", args, code, said)
		}
	}
}
