package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestReplay_fillsADatabaseToWhatItWas(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db kindOfDatabase) {
		b := newBed(t)
		b.publish(t, traffic(3000)...)
		b.work(t, db.url, "db-writer")
		want := rowsOf(t, db.url, "sip_trace")
		if len(want) < 3000 {
			t.Fatalf("%d rows stored", len(want))
		}

		db.wipe(t)
		_, said := b.must(t, "replay", "--to", db.url)
		sameRows(t, rowsOf(t, db.url, "sip_trace"), want)
		contains(t, said, "replayed 3,000 events from 300 frames (1 to 300)", count(len(want))+" rows written, 0 were there already")

		_, said = b.must(t, "replay", "--to", db.url)
		sameRows(t, rowsOf(t, db.url, "sip_trace"), want)
		contains(t, said, "0 rows written, "+count(len(want))+" were there already")

		db.exec(t, db.half)
		left := len(rowsOf(t, db.url, "sip_trace"))
		if left < len(want)/4 || left > len(want)*3/4 {
			t.Fatalf("%d rows of %d left, want about half", left, len(want))
		}
		_, said = b.must(t, "replay", "--to", db.url)
		sameRows(t, rowsOf(t, db.url, "sip_trace"), want)
		contains(t, said, fmt.Sprintf("%s rows written, %s were there already", count(len(want)-left), count(left)))

		if c, err := b.conn.Consumers(t.Context()); err != nil || len(c) != 1 || c[0].Redelivered != 0 {
			t.Errorf("durables %+v, %v; want db-writer alone, and untouched", c, err)
		}
	})
}

// A collector takes HEP over TCP and keeps it.
type collector struct {
	l    net.Listener
	each func(n int) // told of each packet, if set
	most int         // goes away after so many; 0 stays

	mu       sync.Mutex
	payloads []string
}

func newCollector(t *testing.T, each func(n int)) *collector {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{l: l, each: each}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { c.take(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return c
}

// take reads a connection to its end.
func (c *collector) take(conn net.Conn) {
	defer conn.Close()
	r := hep.NewReader(conn)
	var d hep.Decoder
	var p hep.Packet
	for {
		b, err := r.Next()
		if err != nil || d.Decode(&p, b) != nil {
			return
		}
		c.mu.Lock()
		c.payloads = append(c.payloads, string(p.Payload))
		n := len(c.payloads)
		c.mu.Unlock()
		if c.each != nil {
			c.each(n)
		}
		if c.most > 0 && n >= c.most {
			c.l.Close()
			return
		}
	}
}

func (c *collector) url() string { return "hep+tcp://" + c.l.Addr().String() }

func (c *collector) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.payloads)
}

func payloads(events []trace.Event) []string {
	var list []string
	for i := range events {
		list = append(list, string(events[i].Payload))
	}
	return list
}

func TestReplay_toACollectorIsCompleteAndInOrder(t *testing.T) {
	b := newBed(t)
	events := traffic(3000)
	b.publish(t, events...)
	c := newCollector(t, nil)
	_, said := b.must(t, "replay", "--to", c.url())
	await(t, "everything arrives", func() bool { return len(c.got()) >= len(events) })
	if !slices.Equal(c.got(), payloads(events)) {
		t.Errorf("%d messages arrived, not those %d, or not in order", len(c.got()), len(events))
	}
	contains(t, said, "replaying to hep+tcp://127.0.0.1", "replayed 3,000 events from 300 frames")
}

func TestReplay_respectsRulesUnlessToldOtherwise(t *testing.T) {
	b := newBed(t)
	kept := func(f trace.Flags) func(*trace.Event) { return func(e *trace.Event) { e.Flags = f } }
	b.publish(t,
		captured("plain", "INVITE", 0),
		captured("unstored", "INVITE", 1, kept(trace.NoStore)),
		captured("unsent", "INVITE", 2, kept(trace.NoDuplicate)),
		captured("elsewhere", "INVITE", 3, func(e *trace.Event) { e.Destinations = []string{"hep+udp://192.0.2.9"} }))
	for _, tt := range []struct {
		flags []string
		want  int
		said  string
	}{
		{nil, 2, "2 events left out: a rule keeps them from such a target"},
		{[]string{"--all-events"}, 4, "replayed 4 events"},
	} {
		c := newCollector(t, nil)
		_, said := b.must(t, append([]string{"replay", "--to", c.url()}, tt.flags...)...)
		await(t, "all arrives", func() bool { return len(c.got()) == tt.want })
		contains(t, said, tt.said)
	}
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	_, said := b.must(t, "replay", "--to", url)
	contains(t, said, "3 rows written", "1 event left out")
	_, said = b.must(t, "replay", "--to", url, "--all-events")
	contains(t, said, "1 row written, 3 were there already")
	_, said = b.must(t, "replay", "--to", url, "--dry-run")
	contains(t, said, "1 event left out: a rule keeps them")
	if out, _ := b.must(t, "replay", "--to", "text:-"); strings.Count(out, "INVITE sip:") != 4 {
		t.Errorf("a file leaves something out:\n%s", out)
	}
}

// callIDs returns the Call-IDs of the objects in JSON lines.
func callIDs(t *testing.T, lines string) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(lines) {
		var v struct {
			CallID string `json:"callid"`
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		list = append(list, v.CallID)
	}
	return list
}

func TestReplay_selects(t *testing.T) {
	b := newBed(t)
	b.publish(t,
		captured("a", "INVITE", 0), // frame 1
		captured("b", "REGISTER", time.Minute, func(e *trace.Event) { e.Agent = trace.Agent{ID: 7, Name: "edge-2"} }))
	b.publish(t, captured("c", "INVITE", 2*time.Minute, func(e *trace.Event) { e.TracedUsers = []string{"carol"} })) // frame 2
	b.publish(t, captured("d", "BYE", 3*time.Minute, func(e *trace.Event) { e.Src, e.Dst = e.Dst, e.Src }))          // frame 3
	at := func(d time.Duration) string { return start.Add(d).Format(time.RFC3339Nano) }
	tests := []struct {
		flags string
		want  []string
	}{
		{"", []string{"a", "b", "c", "d"}},
		{"--call-id c", []string{"c"}},
		{"--user carol", []string{"c"}},
		{"--user alice", []string{"a", "b", "c", "d"}},
		{"--method register", []string{"b"}},
		{"--addr 192.0.2.1:5060", []string{"a", "b", "c", "d"}},
		{"--addr 203.0.113.0/24", nil},
		{"--agent edge-2", []string{"b"}},
		{"--agent 7", []string{"b"}},
		{"--from " + at(time.Minute), []string{"b", "c", "d"}},
		{"--to-time " + at(time.Minute) + " --slack 2h", []string{"a"}},
		{"--from " + at(time.Minute) + " --to-time " + at(3*time.Minute) + " --slack 2h", []string{"b", "c"}},
		{"--since 7d", []string{"a", "b", "c", "d"}},
		{"--since 1s", nil},
		{"--from-seq 2", []string{"c", "d"}},
		{"--to-seq 2", []string{"a", "b", "c"}},
		{"--from-seq 2 --to-seq 2", []string{"c"}},
		{"--from-seq 99", nil},
	}
	for _, tt := range tests {
		out, _ := b.must(t, append([]string{"replay", "--to", "json:-"}, strings.Fields(tt.flags)...)...)
		if got := callIDs(t, out); !slices.Equal(got, tt.want) {
			t.Errorf("replay %s: calls %v, want %v", tt.flags, got, tt.want)
		}
	}
}

// A tap may have kept events while NATS was away, and clocks may be wrong.
func TestReplay_slackFindsWhatWasStoredAtAnotherTime(t *testing.T) {
	b := newBed(t)
	now := time.Now()
	late := captured("late", "INVITE", 0, func(e *trace.Event) { e.Time = now.Add(-2 * time.Hour) })
	early := captured("early", "INVITE", 0, func(e *trace.Event) { e.Time = now.Add(5 * time.Minute) })
	b.publish(t, late, early)
	at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339Nano) }
	for _, tt := range []struct {
		flags []string
		want  []string
	}{
		{[]string{"--from", at(-3 * time.Hour), "--to-time", at(-time.Hour)}, nil},
		{[]string{"--from", at(-3 * time.Hour), "--to-time", at(-time.Hour), "--slack", "2h"}, []string{"late"}},
		{[]string{"--from", at(4 * time.Minute)}, []string{"early"}},
		{[]string{"--from", at(4 * time.Minute), "--slack", "0s"}, nil},
	} {
		out, _ := b.must(t, append([]string{"replay", "--to", "json:-"}, tt.flags...)...)
		if got := callIDs(t, out); !slices.Equal(got, tt.want) {
			t.Errorf("replay %v: calls %v, want %v", tt.flags, got, tt.want)
		}
	}
}

func TestReplay_dryRunCounts(t *testing.T) {
	b := newBed(t)
	b.publish(t, traffic(400)...)
	b.publish(t, captured("other", "INVITE", time.Minute, func(e *trace.Event) { e.Table = "lab" }))
	out, said := b.must(t, "replay", "--dry-run", "--utc")
	golden(t, "replay-dry-run.txt", blur(out+said))
	out, _ = b.must(t, "replay", "--dry-run", "--json", "--method", "BYE")
	var v outcome
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.Read != 401 || v.Census == nil || v.Census.Events == 0 || v.Census.Methods["BYE"].Requests == 0 || v.Census.Methods["INVITE"] != nil {
		t.Errorf("counted %s", out)
	}
}

func TestReplay_saysWhatItDid(t *testing.T) {
	b := newBed(t)
	b.publish(t, traffic(400)...)
	path := filepath.Join(t.TempDir(), "calls.pcap")
	_, said := b.must(t, "replay", "--to", "pcap:"+path)
	golden(t, "replay-pcap.txt", strings.ReplaceAll(blur(said), path, "calls.pcap"))
	out, _ := b.must(t, "replay", "--to", "sqlite:"+filepath.Join(t.TempDir(), "x.db"), "--json")
	var v outcome
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if v.Frames != 40 || v.FirstSeq != 1 || v.LastSeq != 40 || v.Read != 400 || v.Written != 400 || v.Rows == nil || *v.Rows < 400 || *v.There != 0 {
		t.Errorf("said %s", out)
	}
	code, _, said := b.ctl(t, "replay", "--to", "pcap:"+path)
	if code != 1 || !strings.Contains(said, "--overwrite") {
		t.Errorf("a file that is there: exit %d, said %s", code, said)
	}
	b.must(t, "replay", "--to", "pcap:"+path, "--overwrite")
}

func TestReplay_putsEverythingInAnotherTable(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db kindOfDatabase) {
		b := newBed(t)
		b.publish(t, captured("a", "INVITE", 0), captured("b", "INVITE", time.Millisecond, func(e *trace.Event) { e.Table = "elsewhere" }))
		code, _, said := b.ctl(t, "replay", "--to", db.url, "--table", "lab")
		if code != 1 || !strings.Contains(said, "--create-tables makes lab") {
			t.Errorf("a table that is missing: exit %d, said %s", code, said)
		}
		b.must(t, "replay", "--to", db.url, "--table", "lab", "--create-tables")
		if got := rowsOf(t, db.url, "lab"); len(got) != 2 {
			t.Errorf("%d rows in the table, want 2", len(got))
		}
		if got := rowsOf(t, db.url, "sip_trace"); len(got) != 0 {
			t.Errorf("%d rows in the default table, want none", len(got))
		}
	})
}

func TestReplay_tellsWhatIsRefused(t *testing.T) {
	b := newBed(t)
	b.publish(t, captured("a", "INVITE", 0), captured("b", "INVITE", time.Millisecond, func(e *trace.Event) { e.Table = "missing" }), captured("c", "INVITE", 2*time.Millisecond))
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	code, _, said := b.ctl(t, "replay", "--to", url)
	if code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, said, "replayed 2 events of 3", "refused for good: 1 unknown table (table missing does not exist)")
	if got := rowsOf(t, url, "sip_trace"); len(got) != 2 {
		t.Errorf("%d rows, want the 2 that are good", len(got))
	}
}

func TestReplay_resumesWithoutAGap(t *testing.T) {
	b := newBed(t)
	events := make([]trace.Event, 2000) // 200 frames
	for i := range events {
		events[i] = captured(fmt.Sprintf("call-%d", i), "INVITE", time.Duration(i)*time.Millisecond)
	}
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
	contains(t, said, "going on behind frame")
	await(t, "all arrives", func() bool { return len(distinct(c.got())) == len(events) })
	got := c.got()
	// A part of the batch in hand may come twice, in its order, and nothing else.
	if repeated := len(got) - len(events); repeated < 0 || repeated > 250 {
		t.Errorf("%d messages came twice, want at most a batch", repeated)
	}
	if !slices.Equal(distinct(got), payloads(events)) {
		t.Error("the messages are not in their order")
	}

	_, said = b.must(t, args...)
	contains(t, said, "nothing to replay: there are no such frames behind frame 200, where replay nightly is")
	b.publish(t, captured("new", "INVITE", time.Hour))
	_, said = b.must(t, args...)
	contains(t, said, "replayed 1 event from 1 frame (201 to 201)")
}

// distinct leaves out what has come before.
func distinct(list []string) []string {
	seen := make(map[string]bool)
	var out []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func TestReplay_resumesAFileWithoutRepeating(t *testing.T) {
	b := newBed(t)
	first, second := traffic(300), captured("new", "INVITE", time.Hour)
	b.publish(t, first...)
	path := filepath.Join(t.TempDir(), "all.hep")
	args := []string{"replay", "--to", "hep:" + path, "--resume", "file"}
	b.must(t, args...)
	b.publish(t, second)
	b.must(t, args...)
	found, _ := b.must(t, "import", "--dry-run", "--json", path)
	contains(t, found, `"read":301,`)
}

func TestReplay_resumesOnlyTheSame(t *testing.T) {
	b := newBed(t)
	b.publish(t, traffic(50)...)
	path := filepath.Join(t.TempDir(), "x")
	b.must(t, "replay", "--to", "json:"+path, "--resume", "x")
	code, _, said := b.ctl(t, "replay", "--to", "json:"+path, "--resume", "x", "--method", "BYE")
	if code != 1 || !strings.Contains(said, "was begun otherwise (to json:"+path+")") || !strings.Contains(said, "--restart") {
		t.Errorf("another selection: exit %d, said %s", code, said)
	}
	b.must(t, "replay", "--to", "json:"+path, "--resume", "x", "--method", "BYE", "--restart", "--overwrite")

	js := jetStream(t, b)
	if err := js.DeleteStream(t.Context(), bus.StreamName); err != nil {
		t.Fatal(err)
	}
	if _, err := b.conn.EnsureStreams(t.Context(), bus.StreamConfig{}); err != nil {
		t.Fatal(err)
	}
	b.publish(t, traffic(100)...)
	code, _, said = b.ctl(t, "replay", "--to", "json:"+path, "--resume", "x", "--method", "BYE")
	if code != 1 || !strings.Contains(said, "the stream SIPTRACE was made anew") {
		t.Errorf("another stream: exit %d, said %s", code, said)
	}
}

func jetStream(t *testing.T, b *bed) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(b.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestReplay_tellsWhatTheStreamHasNotAnyMore(t *testing.T) {
	b := newBed(t)
	b.publish(t, traffic(100)...) // 10 frames
	path := filepath.Join(t.TempDir(), "x")
	args := []string{"replay", "--to", "hep:" + path, "--resume", "x"}
	b.must(t, args...)
	b.publish(t, traffic(200)[100:]...) // 10 more
	s, err := jetStream(t, b).Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(16)); err != nil {
		t.Fatal(err)
	}
	code, _, said := b.ctl(t, args...)
	if code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, said, "replayed 50 events from 5 frames (16 to 20)", "5 frames missing: the stream had discarded them")

	b.publish(t, captured("x", "INVITE", 0), captured("y", "INVITE", 0))
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, _, said = b.ctl(t, args...)
	if code != 1 {
		t.Errorf("nothing left: exit %d, want 1", code)
	}
	contains(t, said, "nothing to replay: there are no such frames behind frame 20", "1 frame missing")
	_, said = b.must(t, args...) // it has been said
	contains(t, said, "nothing to replay: there are no such frames behind frame 21")
}

func TestReplay_ofNothingSaysWhatThereIs(t *testing.T) {
	b := newBed(t)
	_, said := b.must(t, "replay", "--to", "json:-")
	contains(t, said, "nothing to replay: the stream has no frames")
	b.publish(t, traffic(20)...)
	_, said = b.must(t, "replay", "--to", "json:-", "--from", "2020-01-01", "--to-time", "2020-01-02")
	contains(t, said, "nothing to replay: the stream has no such frames; what there is was stored from 20")
	path := filepath.Join(t.TempDir(), "x.json")
	b.must(t, "replay", "--to", "json:"+path, "--from-seq", "99")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made for nothing: %v", err)
	}
}

// Of two runs of one name that begin at the same place one is refused, before
// either has written anything.
func TestReplay_onlyOneRunOfAName(t *testing.T) {
	b := newBed(t)
	b.publish(t, traffic(20)...)
	p, err := positions(b).Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.conn.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.json")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stderr, end := b.running(ctx, "replay", "--to", "json:"+path, "--rate", "1/m", "--resume", "x")
	await(t, "it runs", func() bool { return strings.Contains(stderr.String(), "replaying to") })
	p.Owner, p.Places = "another", []bus.ReplayPlace{{Stream: s.Name, Created: s.Created, Seq: 1}}
	if _, err := positions(b).Put(t.Context(), p); !errors.Is(err, bus.ErrReplayRunning) {
		t.Errorf("another run that began at the same place: %v, want ErrReplayRunning", err)
	}
	cancel()
	<-end
}

func TestReplay_waitsForTheTargetAndGivesUp(t *testing.T) {
	b := newBed(t)
	b.publish(t, traffic(3000)...)
	c := newCollector(t, nil)
	c.most = 400
	code, _, said := b.ctl(t, "replay", "--to", c.url(), "--rate", "10000/s", "--retry", "300ms")
	if code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, said, "go on with --from-seq ", "given up after 300ms, --retry waits longer")
	code, _, said = b.ctl(t, "replay", "--to", c.url())
	if code != 1 || !strings.Contains(said, "refused") {
		t.Errorf("a collector that is away: exit %d, said %s", code, said)
	}
}

func TestReplay_wrongUse(t *testing.T) {
	for _, args := range []string{
		"", "--to nonsense", "--to mysql://x", "--to pcap:", "--to hep+tcp://", "--to sqlite:", "--to hep+udp://h?version=9",
		"--to json:- --json", "--to json:x --table lab", "--to hep+udp://h --create-tables", "--to json:x --restart",
		"--to json:x --resume n --from-seq 4", "--to json:x --from-seq 5 --to-seq 4", "--to json:x --since 1h --from 08:00",
		"--to json:x --from 2026-01-02 --to-time 2026-01-01", "--to json:x --rate fast", "--to json:x --addr pbx", "--to json:x --nats ftp://x",
	} {
		if code, _, said := run(t, "", append([]string{"replay"}, strings.Fields(args)...)...); code != 2 {
			t.Errorf("replay %s: exit %d, want 2; said %s", args, code, said)
		}
	}
	if code, out, _ := run(t, "", "replay", "--help"); code != 0 || !strings.Contains(out, "Example") {
		t.Error("no example in the help")
	}
}

func TestRate_reads(t *testing.T) {
	for in, want := range map[string]Rate{"500/s": 500, "500": 500, "30000/m": 500, "3600/h": 1, "0.5/s": 0.5, "0": 0} {
		var r Rate
		if err := r.UnmarshalText([]byte(in)); err != nil || r != want {
			t.Errorf("%s = %v, %v; want %v", in, r, err, want)
		}
		var again Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%s does not read back: %v, %v", r, again, err)
		}
	}
	for _, bad := range []string{"", "fast", "-1", "5/d", "NaN", "Inf", "/s"} {
		var r Rate
		if err := r.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q read as %v", bad, r)
		}
	}
}

func TestPaced_keepsToTheRate(t *testing.T) {
	for _, tt := range []struct {
		rate   Rate
		events int
		least  time.Duration // for all of them
	}{{100, 1000, 9900 * time.Millisecond}, {10_000, 20_000, 1900 * time.Millisecond}, {0.5, 3, 4 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			sink := tt.rate.pace(trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
				n += len(events)
				return nil
			}))
			began := time.Now()
			if err := sink.Write(t.Context(), make([]trace.Event, tt.events)); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			if n != tt.events || took < tt.least || took > tt.least+tt.least/5+time.Second {
				t.Errorf("%s: %d events in %v, want %d in about %v", tt.rate, n, took, tt.events, tt.least)
			}
		})
	}
}

func TestInsistent_writesAgainForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := fmt.Errorf("away")
		calls, good := 0, 3
		sink := trace.SinkFunc(func(context.Context, []trace.Event) error {
			if calls++; calls < good {
				return away
			}
			return nil
		})
		var said []string
		s := newInsistent(sink, time.Minute, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) })
		if err := s.Write(t.Context(), make([]trace.Event, 5)); err != nil || s.written != 5 || calls != 3 || len(said) != 1 {
			t.Errorf("Write = %v after %d calls, %d written, said %q", err, calls, s.written, said)
		}
		good = 1 << 30
		began := time.Now()
		if err := s.Write(t.Context(), make([]trace.Event, 5)); err == nil || time.Since(began) > time.Minute || time.Since(began) < 50*time.Second || s.written != 5 {
			t.Errorf("Write = %v after %v, %d written", err, time.Since(began), s.written)
		}
	})
}

func TestInsistent_finishesAWriteThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sink := trace.SinkFunc(func(ctx context.Context, _ []trace.Event) error {
			cancel()
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		s := newInsistent(sink, time.Minute, nil)
		if err := s.Write(ctx, make([]trace.Event, 1)); err != nil || s.written != 1 {
			t.Errorf("Write = %v, %d written; want it done", err, s.written)
		}
	})
}

func TestProgress_says(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, total: 1300, began: time.Unix(0, 0)}
	p.add(12_000)
	p.at(650, "frame 650 of 1,300")
	if got, want := p.line(time.Unix(10, 0)), " 50 %  12,000 events  1,200/s  frame 650 of 1,300  10s left"; got != want {
		t.Errorf("line is %q, want %q", got, want)
	}
	p.total = 0
	if got, want := p.line(time.Unix(10, 0)), "12,000 events  1,200/s  frame 650 of 1,300"; got != want {
		t.Errorf("line is %q, want %q", got, want)
	}
	p.terminal = true
	p.show(time.Unix(10, 0))
	p.say("waiting: %s", "away")
	if got, want := out.String(), "\r\x1b[K12,000 events  1,200/s  frame 650 of 1,300\r\x1b[Kwaiting: away\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func TestSelection_doesNotAllocatePerEvent(t *testing.T) {
	events := traffic(200)[:7] // the ordinary ones
	s := &selection{query: trace.Query{Method: "INVITE"}, census: newCensus()}
	s.out = trace.SinkFunc(func(context.Context, []trace.Event) error { return nil })
	got := testing.AllocsPerRun(100, func() {
		if err := s.Write(context.Background(), events); err != nil {
			t.Fatal(err)
		}
	})
	if got > 0 || s.census.Events == 0 {
		t.Errorf("%.0f allocations for %d events, %d selected; want none", got, len(events), s.census.Events)
	}
}
