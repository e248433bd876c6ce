package bus_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

func TestConnect_whatWaitingCannotCureIsAnError(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("no credentials"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		name string
		o    bus.Options
	}{
		{"scheme", bus.Options{URL: "http://127.0.0.1:4222"}},
		{"port", bus.Options{URL: "nats://user:secret@127.0.0.1:notaport"}},
		{"no host", bus.Options{URL: "nats://user:secret@:4222"}},
		{"one of several", bus.Options{URL: "nats://127.0.0.1:4222,://user:secret@x"}},
		{"credentials missing", bus.Options{Creds: missing}},
		{"credentials garbage", bus.Options{Creds: garbage}},
		{"seed missing", bus.Options{NKeySeed: missing}},
		{"seed garbage", bus.Options{NKeySeed: garbage}},
		{"roots missing", bus.Options{CA: missing}},
		{"roots garbage", bus.Options{CA: garbage}},
		{"certificate missing", bus.Options{Cert: missing, Key: missing}},
		{"certificate without key", bus.Options{Cert: garbage}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := bus.Connect(tt.o, testLog(t))
			if err == nil {
				c.Close()
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestConn_neverShowsAPassword(t *testing.T) {
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, Username: "tap", Password: "other",
	})
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(quick) {
		t.Fatal("server not ready")
	}
	var log safeBuffer
	addr := strings.TrimPrefix(ns.ClientURL(), "nats://")
	c, err := bus.Connect(bus.Options{URL: "nats://tap:secret@" + addr + ",nats://sesame@" + addr, Name: "tap"}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var check error
	eventually(t, "the check names the reason", func() bool {
		check = c.Check(t.Context())
		return check != nil && strings.Contains(strings.ToLower(check.Error()), "authorization violation")
	})
	for _, text := range []string{log.String(), check.Error(), c.URL()} {
		if strings.Contains(text, "secret") || strings.Contains(text, "sesame") {
			t.Errorf("a password is shown: %s", text)
		}
	}
}

func TestConn_checkSaysWhatIsAwaited(t *testing.T) {
	addr := freeAddr(t)
	c := connect(t, addr, "tap") // without a scheme
	want := "waiting for NATS at nats://" + addr + ": connection refused"
	eventually(t, "the check says: "+want, func() bool {
		err := c.Check(t.Context())
		return err != nil && err.Error() == want
	})
	s := startServer(t, t.TempDir(), addr)
	eventually(t, "the check is content", func() bool { return c.Check(t.Context()) == nil })
	s.Shutdown()
	eventually(t, "the check says so again", func() bool { return c.Check(t.Context()) != nil })
}

func TestConn_inProcess(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c, err := bus.Connect(bus.Options{Name: "up", InProcess: s}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ensure(t, c, bus.StreamConfig{})
	publish(t, c, 0, 10)
	wantOnce(t, stored(t, c), 10)
}

func TestConn_inboxBelongsToTheService(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "db-writer")
	_, nc := jetStream(t, s)
	sub, err := nc.SubscribeSync("_INBOX_db-writer.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	ensure(t, c, bus.StreamConfig{})
	if _, err := sub.NextMsg(quick); err != nil {
		t.Errorf("no reply went to the inbox of the service: %v", err)
	}
}

func TestEnsureStreams_makesWhatIsMissingAndLeavesTheRest(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	js, _ := jetStream(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: bus.RejectsStreamName, Subjects: []string{bus.RejectsSubject + ".>"}, MaxBytes: 1 << 20, Storage: jetstream.MemoryStorage,
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() bool { return c.Check(t.Context()) == nil })
	diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range diffs {
		got = append(got, d.String())
	}
	for _, want := range []string{
		"stream SIPTRACE_REJECTS: max age is 0s, wanted 168h0m0s",
		"stream SIPTRACE_REJECTS: max bytes is 1048576, wanted 268435456",
		"stream SIPTRACE_REJECTS: storage is Memory, wanted File",
	} {
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("differences %q, want %q among them", got, want)
		}
	}
	stream, err := js.Stream(t.Context(), bus.RejectsStreamName)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().Config.MaxBytes; got != 1<<20 {
		t.Errorf("max bytes was changed to %d", got)
	}
	events, err := js.Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	cfg := events.CachedInfo().Config
	if cfg.Discard != jetstream.DiscardOld || cfg.Retention != jetstream.LimitsPolicy || cfg.MaxAge != bus.DefaultMaxAge ||
		cfg.Duplicates != bus.DefaultDuplicates || cfg.Storage != jetstream.FileStorage || !cfg.AllowDirect {
		t.Errorf("stream made with %+v", cfg)
	}
	kv, err := js.KeyValue(t.Context(), bus.BucketName)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := kv.Status(t.Context()); err != nil || st.History() != 64 {
		t.Errorf("bucket keeps %d revisions, %v, want 64", st.History(), err)
	}
	again, err := c.EnsureStreams(t.Context(), bus.StreamConfig{})
	if err != nil || len(again) != len(diffs) {
		t.Errorf("the second time: %v, %v, want the same differences", again, err)
	}
	if diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{MaxBytes: 1 << 30}); err != nil || len(diffs) != len(again)+1 {
		t.Errorf("with another size wanted: %v, %v, want one difference more", diffs, err)
	}
}

func TestEnsureStreams_sizeFitsTheServer(t *testing.T) {
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, JetStreamMaxStore: 1 << 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(quick) {
		t.Fatal("server not ready")
	}
	c := connect(t, ns.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{})
	st, err := c.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.MaxBytes != bus.DefaultMaxBytes/16 {
		t.Errorf("stream of %d bytes, want %d", st.MaxBytes, bus.DefaultMaxBytes/16)
	}
	other := connect(t, ns.ClientURL(), "other")
	if _, err := other.EnsureStreams(t.Context(), bus.StreamConfig{}); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

func TestEnsureStreams_failsWhileNATSIsAway(t *testing.T) {
	c := connect(t, "nats://127.0.0.1:1", "test")
	ctx, cancel := context.WithTimeout(t.Context(), quick)
	defer cancel()
	if _, err := c.EnsureStreams(ctx, bus.StreamConfig{}); err == nil {
		t.Error("no error without a server")
	}
}
