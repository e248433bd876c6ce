package ctl

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/internal/pgserver"
)

// said is what a command that runs has said so far.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// running runs a command beside the test; its end brings its exit code.
func (b *bed) running(ctx context.Context, args ...string) (stderr *said, end <-chan int) {
	stderr = new(said)
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, append(args, "--nats", b.url), strings.NewReader(""), &bytes.Buffer{}, stderr)
	}()
	return stderr, code
}

func TestReplay_waitsForADatabaseThatIsAway(t *testing.T) {
	b := newShardedBed(t, shards)
	b.publish(t, traffic(2000)...)
	db, err := pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("SIPTRACE_TEST_POSTGRES") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Stop() })
	stderr, end := b.running(t.Context(), "replay", "--to", db.URL(), "--rate", "1000/s", "--resume", "x")
	await(t, "some of it is written", func() bool {
		p, err := positions(b).Get(t.Context(), "x")
		return err == nil && p.Events > 0
	})
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "it is said that the database is away", func() bool { return strings.Contains(stderr.String(), "waiting: ") })
	if err := db.Restart(); err != nil {
		t.Fatal(err)
	}
	if code := <-end; code != 0 {
		t.Fatalf("exit %d, said %s", code, stderr)
	}
	contains(t, stderr.String(), "replayed 2,000 events from ")
	_, again := b.must(t, "replay", "--to", db.URL())
	contains(t, again, "0 rows written")
}

func TestReplay_saysThatNATSIsAwayAndGoesOn(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	b, stopServer := bedIn(t, dir, shards)
	events := calls()
	b.publish(t, events...)
	path := filepath.Join(t.TempDir(), "x.json")
	stderr, end := b.running(t.Context(), "replay", "--to", "json:"+path, "--rate", "500/s", "--resume", "x")
	await(t, "some of it is written", func() bool {
		p, err := positions(b).Get(t.Context(), "x")
		return err == nil && p.Events > 0
	})
	stopServer()
	await(t, "it is said that NATS is away", func() bool { return strings.Contains(stderr.String(), "waiting for NATS at ") })
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: strings.TrimPrefix(b.url, "nats://"), Log: log, MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	if code := <-end; code != 0 {
		t.Fatalf("exit %d, said %s", code, stderr)
	}
	contains(t, stderr.String(), "NATS is back, going on")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := eventIDs(t, string(text))
	sameSet(t, "events in the file", got, idsOf(events))
}

// A replay that is interrupted before it has written a batch is gone on with
// as any other.
func TestReplay_interruptedAtOnceGoesOnWithItsFile(t *testing.T) {
	b := newBed(t)
	events := calls()
	b.publish(t, events...)
	path := filepath.Join(t.TempDir(), "x.json")
	ctx, cancel := context.WithCancel(t.Context())
	stderr, end := b.running(ctx, "replay", "--to", "json:"+path, "--rate", "1/m", "--resume", "x")
	await(t, "it runs", func() bool { return strings.Contains(stderr.String(), "replaying to") })
	cancel()
	if code := <-end; code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, stderr.String(), "stopped before the end; the same command goes on there: --resume x")
	b.must(t, "replay", "--to", "json:"+path, "--resume", "x")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := eventIDs(t, string(text))
	sameSet(t, "events in the file", distinct(got), idsOf(events))
}
