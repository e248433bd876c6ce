package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// shards is how many streams the fleet of these tests has.
const shards = 4

// eventIDs returns the identities in JSON lines, and their times.
func eventIDs(t *testing.T, lines string) (ids []string, times []string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var v struct {
			ID   string `json:"event_id"`
			Time string `json:"time_stamp"`
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		ids, times = append(ids, v.ID), append(times, v.Time)
	}
	return ids, times
}

// idsOf are the identities of events.
func idsOf(events []trace.Event) []string {
	var ids []string
	for i := range events {
		ids = append(ids, events[i].ID.String())
	}
	return ids
}

// sameSet checks two lists for the same members, each as often.
func sameSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d of %d, or not the same", what, len(got), len(want))
	}
}

func TestReplay_ofSeveralStreamsFillsADatabaseToWhatItWas(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db kindOfDatabase) {
		b := newShardedBed(t, shards)
		b.publish(t, traffic(3000)...)
		b.work(t, db.url, "db-writer")
		want := rowsOf(t, db.url, "sip_trace")
		before, err := b.conn.Consumers(t.Context())
		if err != nil || len(want) < 3000 {
			t.Fatalf("%d rows stored, %v", len(want), err)
		}

		db.wipe(t)
		_, said := b.must(t, "replay", "--to", db.url)
		sameRows(t, rowsOf(t, db.url, "sip_trace"), want)
		contains(t, said, "frames of 4 streams", "replayed 3,000 events from ", count(len(want))+" rows written, 0 were there already")
		_, said = b.must(t, "replay", "--to", db.url)
		sameRows(t, rowsOf(t, db.url, "sip_trace"), want)
		contains(t, said, "0 rows written, "+count(len(want))+" were there already")

		after, err := b.conn.Consumers(t.Context())
		if err != nil || len(after) != 1 || after[0].Redelivered != 0 || !after[0].LastActive.Equal(before[0].LastActive) {
			t.Errorf("durables %+v, %v; want db-writer alone, and untouched", after, err)
		}
	})
}

func TestReplay_ofSeveralStreamsToAFileIsInTheOrderOfTime(t *testing.T) {
	b := newShardedBed(t, shards)
	events := traffic(2000)
	b.publish(t, events...)
	out, said := b.must(t, "replay", "--to", "json:-")
	ids, times := eventIDs(t, out)
	sameSet(t, "events in the file", ids, idsOf(events))
	if !slices.IsSorted(times) {
		t.Error("the file is not in the order of time")
	}
	contains(t, said, "replaying to json:-: ", " frames of 4 streams")
}

// calls are 400 calls of 5 messages, no two of them the same.
func calls() (events []trace.Event) {
	for i := range 2000 {
		events = append(events, captured(fmt.Sprintf("call-%d", i%400), fmt.Sprintf("M%d", i/400), time.Duration(i)*time.Millisecond))
	}
	return events
}

func TestReplay_ofSeveralStreamsResumesWithoutAGap(t *testing.T) {
	b := newShardedBed(t, shards)
	events := calls()
	b.publish(t, events...)
	ctx, cancel := context.WithCancel(t.Context())
	c := newCollector(t, func(n int) {
		if n == 500 {
			cancel()
		}
	})
	args := []string{"replay", "--to", c.url(), "--rate", "5000/s", "--resume", "nightly"}
	code, _, said := b.ctlUntil(t, ctx, args...)
	if code != 1 {
		t.Errorf("interrupted: exit %d, want 1", code)
	}
	contains(t, said, "stopped before the end; the same command goes on there: --resume nightly")

	_, said = b.must(t, args...)
	contains(t, said, "going on behind frames ", " of 4 streams, where replay nightly was at")
	await(t, "all arrives", func() bool { return len(distinct(c.got())) == len(events) })
	sameSet(t, "messages", distinct(c.got()), payloads(events))
	if repeated := len(c.got()) - len(events); repeated > 260 {
		t.Errorf("%d messages came twice, want at most a batch", repeated)
	}
	place := make(map[string]int)
	for i, p := range payloads(events) {
		place[p] = i
	}
	last := make(map[int]int)
	for _, p := range distinct(c.got()) {
		i := place[p]
		if i < last[i%400] {
			t.Fatalf("message %d of a call came behind message %d", i/400, last[i%400]/400)
		}
		last[i%400] = i
	}

	_, said = b.must(t, args...)
	contains(t, said, "nothing to replay: there are no such frames behind frames")
	b.publish(t, captured("new", "INVITE", time.Hour))
	_, said = b.must(t, args...)
	contains(t, said, "replayed 1 event from 1 frame of 4 streams")
}

func TestReplay_ofSeveralStreamsSelects(t *testing.T) {
	b := newShardedBed(t, shards)
	var events []trace.Event
	for i := range 200 {
		e := captured(fmt.Sprintf("call-%d", i), []string{"INVITE", "BYE"}[i%2], time.Duration(i)*time.Second)
		e.Agent = trace.Agent{Name: fmt.Sprintf("edge-%d", i%3)}
		e.Identify()
		events = append(events, e)
	}
	b.publish(t, events...)
	at := func(i int) string { return start.Add(time.Duration(i) * time.Second).Format(time.RFC3339Nano) }
	for _, tt := range []struct {
		flags string
		want  func(i int) bool
	}{
		{"", func(int) bool { return true }},
		{"--call-id call-17", func(i int) bool { return i == 17 }},
		{"--method BYE", func(i int) bool { return i%2 == 1 }},
		{"--agent edge-2", func(i int) bool { return i%3 == 2 }},
		{"--from " + at(50) + " --to-time " + at(60) + " --slack 2h", func(i int) bool { return i >= 50 && i < 60 }},
		{"--since 1s", func(int) bool { return false }},
		{"--shard 2", func(i int) bool { return bus.ShardOf(&events[i], shards) == 2 }},
		{"--shard 2 --from-seq 1", func(i int) bool { return bus.ShardOf(&events[i], shards) == 2 }},
		{"--shard 2 --from-seq 99", func(int) bool { return false }},
		{"--shard 1 --agent edge-0", func(i int) bool { return bus.ShardOf(&events[i], shards) == 1 && i%3 == 0 }},
	} {
		var want []string
		for i := range events {
			if tt.want(i) {
				want = append(want, events[i].ID.String())
			}
		}
		out, _ := b.must(t, append([]string{"replay", "--to", "json:-"}, strings.Fields(tt.flags)...)...)
		got, _ := eventIDs(t, out)
		sameSet(t, "replay "+tt.flags, got, want)

		out, _ = b.must(t, append([]string{"replay", "--dry-run", "--json"}, strings.Fields(tt.flags)...)...)
		var v outcome
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		if selected := v.Census; len(want) > 0 && (selected == nil || selected.Events != len(want)) {
			t.Errorf("replay --dry-run %s counts %s, want %d events", tt.flags, out, len(want))
		}
	}
}

func TestReplay_aSequenceWantsItsShard(t *testing.T) {
	b := newShardedBed(t, shards)
	b.publish(t, traffic(100)...)
	for _, tt := range []struct{ flags, want string }{
		{"--from-seq 2", "--from-seq and --to-seq want --shard: each stream numbers its frames for itself, and there are 4, shard 0 to 3"},
		{"--to-seq 2", "--from-seq and --to-seq want --shard"},
		{"--shard 4", "--shard: no such shard: 4, and there are 4, counted from 0"},
		{"--shard=-1", "--shard: no such shard"},
	} {
		code, _, said := b.ctl(t, append([]string{"replay", "--to", "json:-"}, strings.Fields(tt.flags)...)...)
		if code != 2 || !strings.Contains(said, tt.want) {
			t.Errorf("replay %s: exit %d, said %s; want %q", tt.flags, code, said, tt.want)
		}
	}
	one := newBed(t)
	one.publish(t, traffic(20)...)
	if code, _, said := one.ctl(t, "replay", "--to", "json:-", "--shard", "1"); code != 2 {
		t.Errorf("a shard of a fleet with one stream: exit %d, said %s", code, said)
	}
	if out, _ := one.must(t, "replay", "--to", "json:-", "--shard", "0", "--from-seq", "2"); strings.Count(out, "\n") != 10 {
		t.Errorf("the one stream as shard 0: %d events, want 10", strings.Count(out, "\n"))
	}
}

// What a dry run counts does not depend on over how many streams events are
// spread.
func TestReplay_dryRunOfSeveralStreamsCountsTheSame(t *testing.T) {
	counts := func(n int) (v outcome) {
		b := newShardedBed(t, n)
		b.publish(t, traffic(1000)...)
		out, _ := b.must(t, "replay", "--dry-run", "--json")
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		text, said := b.must(t, "replay", "--dry-run", "--utc")
		if n > 1 {
			contains(t, text, "selected  1,000 events of 1,000 in ", " frames of 4 streams")
			contains(t, said, "reading ")
		}
		return v
	}
	one, four := counts(1), counts(shards)
	a, _ := json.Marshal(one.Census)
	b, _ := json.Marshal(four.Census)
	if string(a) != string(b) || one.Read != four.Read {
		t.Errorf("counted\n%s of %d, want\n%s of %d", b, four.Read, a, one.Read)
	}
	if len(four.Shards) != shards || four.FirstSeq != 0 || one.Shards != nil {
		t.Errorf("streams %+v, and of one %+v", four, one)
	}
	for i, s := range four.Shards {
		if s.Shard != i || s.Stream != fmt.Sprintf("SIPTRACE_%d", i) || s.FirstSeq != 1 || s.LastSeq < 2 {
			t.Errorf("stream %d: %+v", i, s)
		}
	}
}

func TestReplay_ofSeveralStreamsSaysHowToGoOn(t *testing.T) {
	b := newShardedBed(t, shards)
	events := calls()
	b.publish(t, events...)
	ctx, cancel := context.WithCancel(t.Context())
	c := newCollector(t, func(n int) {
		if n == 500 {
			cancel()
		}
	})
	_, _, said := b.ctlUntil(t, ctx, "replay", "--to", c.url(), "--rate", "5000/s")
	_, ways, _ := strings.Cut(said, "stopped before the end; go on with each of ")
	ways, _, found := strings.Cut(ways, "; another time, --resume NAME keeps the places")
	if !found {
		t.Fatalf("said %s", said)
	}
	for way := range strings.SplitSeq(ways, ", ") {
		b.must(t, append([]string{"replay", "--to", c.url()}, strings.Fields(way)...)...)
	}
	await(t, "all arrives", func() bool { return len(distinct(c.got())) == len(events) })
	sameSet(t, "messages", distinct(c.got()), payloads(events))
}

func TestReplay_tellsWhatOneOfTheStreamsHasNotAnyMore(t *testing.T) {
	b := newShardedBed(t, shards)
	b.publish(t, traffic(400)...)
	path := filepath.Join(t.TempDir(), "x")
	args := []string{"replay", "--to", "hep:" + path, "--resume", "x"}
	b.must(t, args...)
	b.publish(t, traffic(800)[400:]...)
	s, err := jetStream(t, b).Stream(t.Context(), "SIPTRACE_1")
	if err != nil {
		t.Fatal(err)
	}
	last := s.CachedInfo().State.LastSeq
	if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(last)); err != nil {
		t.Fatal(err)
	}
	code, _, said := b.ctl(t, args...)
	if code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, said, "missing: the stream had discarded them before they were read")

	js := jetStream(t, b)
	if err := js.DeleteStream(t.Context(), "SIPTRACE_3"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.conn.EnsureStreams(t.Context(), bus.StreamConfig{}); err != nil {
		t.Fatal(err)
	}
	code, _, said = b.ctl(t, args...)
	if code != 1 || !strings.Contains(said, "the stream SIPTRACE_3 was made anew") {
		t.Errorf("another stream: exit %d, said %s", code, said)
	}
}

func TestImport_putsEachEventIntoItsStream(t *testing.T) {
	one := newBed(t)
	events := traffic(500)
	one.publish(t, events...)
	path := filepath.Join(t.TempDir(), "all.hep")
	one.must(t, "replay", "--to", "hep:"+path)

	b := newShardedBed(t, shards)
	_, said := b.must(t, "import", path)
	contains(t, said, "imported 500 events")
	for shard := range shards {
		var want []string
		for i := range events {
			if bus.ShardOf(&events[i], shards) == shard {
				want = append(want, events[i].ID.String())
			}
		}
		out, _ := b.must(t, "replay", "--to", "json:-", "--shard", fmt.Sprint(shard))
		got, _ := eventIDs(t, out)
		sameSet(t, fmt.Sprintf("shard %d", shard), got, want)
	}
}

func TestReject_retryViaStreamGoesIntoTheStreamOfTheCall(t *testing.T) {
	b := newShardedBed(t, shards)
	e := captured("call-0", "INVITE", 0)
	for i := 0; bus.ShardOf(&e, shards) != 3; i++ {
		e = captured(fmt.Sprintf("call-%d", i), "INVITE", 0)
	}
	if err := bus.NewRejects(b.conn).Put(t.Context(), bus.Reject{Worker: "db-writer", Reason: "test", Event: &e}); err != nil {
		t.Fatal(err)
	}
	out, _ := b.must(t, "reject", "list")
	contains(t, out, "db-writer")
	b.must(t, "reject", "retry", "--via-stream")
	out, _ = b.must(t, "replay", "--to", "json:-", "--shard", "3")
	if got, _ := eventIDs(t, out); !slices.Equal(got, idsOf([]trace.Event{e})) {
		t.Errorf("events in the stream of the call: %v, want that one", got)
	}
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	b.work(t, url, "db-writer")
	if rows := rowsOf(t, url, "sip_trace"); len(rows) != 1 {
		t.Errorf("%d rows, want one", len(rows))
	}
}

// A file that cannot be written is known before anything is read.
func TestReplay_aFileThatCannotBeWrittenFailsAtTheStart(t *testing.T) {
	b := newShardedBed(t, shards)
	b.publish(t, traffic(100)...)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"pcap:" + dir + "/none/x.pcap", "json:" + dir + "/file/x.json", "hep:" + dir} {
		code, _, said := b.ctl(t, "replay", "--to", target, "--resume", "x")
		if code != 1 || strings.Contains(said, "replaying") {
			t.Errorf("%s: exit %d, said %s", target, code, said)
		}
	}
	if p, err := positions(b).Get(t.Context(), "x"); err != nil || p.Revision != 0 {
		t.Errorf("a position %+v, %v, want none", p, err)
	}
}
