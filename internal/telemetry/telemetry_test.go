package telemetry_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestServer_saysWhatItWaitsFor(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	s, err := telemetry.Listen("127.0.0.1:0", telemetry.NewRegistry(), slog.New(slog.DiscardHandler),
		telemetry.Check{Name: "nats", Func: func(context.Context) error { return nil }},
		telemetry.Check{Name: "database", Func: func(context.Context) error {
			if away.Load() {
				return errors.New("connection refused")
			}
			return nil
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Stop(t.Context())
	base := "http://" + s.Addr().String()

	if code, body := get(t, base+"/readyz"); code != 503 || body != "database: connection refused\n" {
		t.Errorf("/readyz while away = %d %q, want 503 and the reason", code, body)
	}
	away.Store(false)
	if code, body := get(t, base+"/readyz"); code != 200 || body != "ready\n" {
		t.Errorf("/readyz = %d %q, want 200 ready", code, body)
	}
	if code, _ := get(t, base+"/healthz"); code != 200 {
		t.Errorf("/healthz = %d, want 200", code)
	}
	if _, body := get(t, base+"/metrics"); !strings.Contains(body, "go_goroutines") {
		t.Error("/metrics has no runtime metrics")
	}
}

func TestListen_portTakenSaysWhatToTry(t *testing.T) {
	first, err := telemetry.Listen("127.0.0.1:0", telemetry.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first.Start()
	defer first.Stop(t.Context())
	_, err = telemetry.Listen(first.Addr().String(), telemetry.NewRegistry(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "--http") {
		t.Errorf("second listener error = %v, want one that names --http", err)
	}
}

func TestNewLogger_refusesWhatItDoesNotKnow(t *testing.T) {
	if _, err := telemetry.NewLogger(io.Discard, "loud", "auto"); err == nil {
		t.Error("level loud accepted")
	}
	if _, err := telemetry.NewLogger(io.Discard, "info", "xml"); err == nil {
		t.Error("format xml accepted")
	}
}

func TestNewLogger_writesJSONWhereNobodyWatches(t *testing.T) {
	var b strings.Builder
	log, err := telemetry.NewLogger(&b, "info", "auto")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("started", "addr", "x")
	if !strings.HasPrefix(b.String(), "{") {
		t.Errorf("log line = %q, want JSON", b.String())
	}
}
