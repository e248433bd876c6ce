package ctl

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/internal/testport"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

// soon is the time a test waits for what should happen at once.
const soon = time.Minute

// A bed is a NATS server with the streams, and a connection to it.
type bed struct {
	url    string
	conn   *bus.Conn
	shards int
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return newShardedBed(t, 1)
}

// newShardedBed spreads events over several streams.
func newShardedBed(t *testing.T, shards int) *bed {
	t.Helper()
	b, _ := bedIn(t, t.TempDir(), shards)
	return b
}

// positions is where replays keep how far they are.
func positions(b *bed) *bus.ReplayPositions { return bus.NewReplayPositions(b.conn) }

// bedIn keeps the streams in a folder, and its server can be stopped.
func bedIn(t *testing.T, dir string, shards int) (b *bed, stop func()) {
	t.Helper()
	b, stop = bareBed(t, dir)
	b.shards = shards
	if _, err := b.conn.EnsureStreams(t.Context(), bus.StreamConfig{Shards: shards}); err != nil {
		t.Fatal(err)
	}
	return b, stop
}

// freeAddr is an address of the loopback that nobody uses, for UDP and TCP.
func freeAddr(t *testing.T) string { return testport.Addr(t, 18_000, 500) }

// bareBed has no streams yet.
func bareBed(t *testing.T, dir string) (b *bed, stop func()) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: freeAddr(t), Log: log, MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	conn, err := bus.Connect(bus.Options{URL: s.ClientURL(), Name: "test"}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := conn.Await(ctx); err != nil {
		t.Fatal(err)
	}
	return &bed{s.ClientURL(), conn, 1}, s.Shutdown
}

// background runs f until the test ends or stop is called, which waits for it.
func background(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// publish puts events into the stream, in frames of 10.
func (b *bed) publish(t *testing.T, events ...trace.Event) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	p, err := bus.NewPublisher(b.conn, bus.PublisherOptions{Agent: "edge", FrameEvents: 10, Shards: b.shards}, prometheus.NewRegistry(), log)
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, p.Run)
	if err := p.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	stop()
}

// work runs a db-writer until it has everything in the stream.
func (b *bed) work(t *testing.T, url, durable string) {
	t.Helper()
	s, err := open.Writer(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := bus.NewConsumer(b.conn, bus.ConsumerOptions{Durable: durable, Linger: time.Millisecond}, bus.NewRejects(b.conn),
		prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, func(ctx context.Context) error { return c.Run(ctx, s) })
	b.idle(t, durable)
	stop()
}

// idle waits until a durable has acknowledged everything.
func (b *bed) idle(t *testing.T, durable string) {
	t.Helper()
	await(t, durable+" has everything", func() bool {
		all, err := b.conn.Consumers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.Name == durable {
				return c.Pending == 0 && c.AckPending == 0 && !c.LastActive.IsZero()
			}
		}
		return false
	})
}

// lastFrame is the sequence of the last frame of the stream.
func (b *bed) lastFrame(t *testing.T) uint64 {
	t.Helper()
	s, err := b.conn.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.LastSeq
}

// await waits until ok is true.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", soon, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ctl runs a command against the bed.
func (b *bed) ctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return b.ctlUntil(t, t.Context(), args...)
}

// ctlUntil runs a command that is interrupted when ctx ends.
func (b *bed) ctlUntil(t *testing.T, ctx context.Context, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(ctx, append(args, "--nats", b.url), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// must runs a command that is to succeed and returns what it says.
func (b *bed) must(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := b.ctl(t, args...)
	if code != 0 {
		t.Fatalf("ctl %s: exit %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout, stderr
}

// contains checks what a command has said.
func contains(t *testing.T, said string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(said, w) {
			t.Errorf("said\n%s\nwant %q in it", said, w)
		}
	}
}

// start is when the tests' messages were captured.
var start = time.Now().UTC().Truncate(time.Hour).Add(-time.Hour + 123456*time.Microsecond)

// traffic is n events as a busy network has them, some of them odd.
func traffic(n int) []trace.Event {
	events := storetest.NewTraffic(1, start).Events(n)
	for i := range events {
		e := &events[i]
		switch {
		case i%100 == 7:
			e.TracedUsers, e.Flags = []string{"alice"}, trace.UsersOnly
		case i%50 == 13:
			e.TracedUsers = []string{"alice", "bob"}
		case i%100 == 33:
			e.Payload = []byte("INVITE sip:\x00\xff SIP/2.0\r\nCall-ID: odd\r\n\r\n")
		case i%100 == 44:
			e.Type, e.Payload, e.CorrelationID = trace.TypeLog, []byte("a line of a log"), []byte("corr")
		case i%100 == 55:
			e.Transport, e.Src = trace.TLS, netip.MustParseAddrPort("[2001:db8::1]:5061")
		case i%100 == 66:
			e.Agent = trace.Agent{ID: 42}
		}
		e.Identify()
	}
	return events
}

// A kindOfDatabase is where a test finds an empty database.
type kindOfDatabase struct {
	name string
	url  string
	exec func(t *testing.T, sql string)
	half string // deletes about half of the rows
	wipe func(t *testing.T)
}

// eachDatabase runs a test with SQLite and with PostgreSQL.
func eachDatabase(t *testing.T, test func(t *testing.T, db kindOfDatabase)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteDatabase(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, postgresDatabase(t)) })
}

func sqliteDatabase(t *testing.T) kindOfDatabase {
	path := filepath.Join(t.TempDir(), "trace.db")
	return kindOfDatabase{
		name: "sqlite", url: "sqlite:" + path, half: "DELETE FROM sip_trace WHERE random() % 2 = 0",
		exec: func(t *testing.T, query string) {
			t.Helper()
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.ExecContext(t.Context(), query); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		},
		wipe: func(t *testing.T) {
			t.Helper()
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
		},
	}
}

func postgresDatabase(t *testing.T) kindOfDatabase {
	s, err := pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("SIPTRACE_TEST_POSTGRES") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	exec := func(t *testing.T, query string) {
		t.Helper()
		c, err := pgx.Connect(t.Context(), s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		if _, err := c.Exec(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	return kindOfDatabase{
		name: "postgres", url: s.URL(), exec: exec, half: "DELETE FROM sip_trace WHERE random() < 0.5",
		wipe: func(t *testing.T) { exec(t, "DROP SCHEMA public CASCADE; CREATE SCHEMA public") },
	}
}

// rowsOf returns every row of a table, in the order of the key.
func rowsOf(t *testing.T, url, table string) []store.Row {
	t.Helper()
	s, err := open.Reader(url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var rows []store.Row
	for r, err := range s.Rows(t.Context(), trace.Query{Table: table}) {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}

// sameRows checks two tables row by row.
func sameRows(t *testing.T, got, want []store.Row) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("row %d is\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
}

// golden compares what a command has said with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *updateGolden {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// blur writes whatever is another at each run as the same.
func blur(s string) string {
	for pattern, by := range map[string]string{
		`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`: "00000000-0000-0000-0000-000000000000",
		`in \d+(\.\d+)?(ms|s)\b`:                    "in 1s",
		`"seconds":[0-9.e-]+`:                       `"seconds":1`,
		`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?`:    "2026-01-02 03:04:05",
	} {
		s = regexp.MustCompile(pattern).ReplaceAllString(s, by)
	}
	return s
}

// captured is an event of a call at a time after start.
func captured(callID, method string, after time.Duration, change ...func(*trace.Event)) trace.Event {
	e := trace.Event{
		Time: start.Add(after), Agent: trace.Agent{Name: "edge-1"}, Transport: trace.UDP, Type: trace.TypeSIP,
		Src: netip.MustParseAddrPort("192.0.2.1:5060"), Dst: netip.MustParseAddrPort("198.51.100.2:5062"),
		Payload: fmt.Appendf(nil, "%s sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"+
			"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.org>\r\nCall-ID: %s\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n",
			method, callID, method),
	}
	for _, c := range change {
		c(&e)
	}
	e.Identify()
	return e
}
