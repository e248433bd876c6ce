package natsd_test

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
)

func start(t *testing.T, o natsd.Options) *natsd.Server {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := natsd.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func stream(t *testing.T, nc *nats.Conn) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStart_keepsItsDataAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, natsd.Options{Dir: dir, Listen: "127.0.0.1:-1", MaxStore: 64 << 20, SyncAlways: true})
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	stream(t, nc)
	if _, err := nc.Request("s", []byte("kept"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	s.Shutdown()
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); err != nil {
		t.Errorf("the store is not in the directory given: %v", err)
	}

	again := start(t, natsd.Options{Dir: dir, Listen: "127.0.0.1:-1", MaxStore: 64 << 20})
	nc, err = nats.Connect("", nats.InProcessServer(again))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	msg, err := stream(t, nc).GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(msg.Data); got != "kept" {
		t.Errorf("message after the restart = %q, want %q", got, "kept")
	}
}

func TestStart_saysWhenThePortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = natsd.Start(natsd.Options{Dir: t.TempDir(), Listen: l.Addr().String(), Log: slog.Default()})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()+" is taken") {
		t.Errorf("Start error = %v, want the address and that it is taken", err)
	}
}

func TestStart_refusesWhatCannotWork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	tests := []struct {
		name string
		o    natsd.Options
	}{
		{"no directory", natsd.Options{Log: log}},
		{"no logger", natsd.Options{Dir: t.TempDir()}},
		{"no port", natsd.Options{Dir: t.TempDir(), Listen: "127.0.0.1", Log: log}},
		{"port out of range", natsd.Options{Dir: t.TempDir(), Listen: "127.0.0.1:70000", Log: log}},
		{"address of somebody else", natsd.Options{Dir: t.TempDir(), Listen: "192.0.2.1:4222", Log: log}},
		{"directory is a file", natsd.Options{Dir: file, Listen: "127.0.0.1:0", Log: log}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := natsd.Start(tt.o)
			if err == nil {
				s.Shutdown()
				t.Fatal("Start returned no error")
			}
		})
	}
}

func TestServer_warningsReachTheLog(t *testing.T) {
	var out lockedBuffer
	s := start(t, natsd.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(&out, nil))})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(append(bytes.Repeat([]byte("x"), 8<<10), "\r\n"...)); err != nil { // no NATS protocol
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(out.String(), "nats server") {
		if time.Now().After(deadline) {
			t.Fatal("nothing in the log about a client that does not speak NATS")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
