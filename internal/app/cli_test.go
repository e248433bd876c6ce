package app_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/app"
)

func TestMain_printedConfigReadsBack(t *testing.T) {
	args := []string{"--store", "postgres://u:geheim@db/x", "--batch", "77", "--linger", "1s", "--print-config"}
	var first, second, stderr bytes.Buffer
	if code := app.Main("db-writer", "", new(app.WriterOptions), args, &first, &stderr); code != app.ExitDone {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	if strings.Contains(first.String(), "geheim") {
		t.Errorf("the password is shown:\n%s", &first)
	}
	file := filepath.Join(t.TempDir(), "db-writer.yaml")
	if err := os.WriteFile(file, first.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := app.Main("db-writer", "", new(app.WriterOptions), []string{"--config", file, "--print-config"}, &second, &stderr); code != app.ExitDone {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	if first.String() != second.String() {
		t.Errorf("read back:\n%swant:\n%s", &second, &first)
	}
	for _, want := range []string{"batch: 77", "linger: 1s"} {
		if !strings.Contains(first.String(), want) {
			t.Errorf("no %q in:\n%s", want, &first)
		}
	}
}

func TestMain_environmentGivesWayToFlags(t *testing.T) {
	t.Setenv("SIPTRACE_STORE", "sqlite:env.db")
	t.Setenv("SIPTRACE_BATCH", "11")
	var out, stderr bytes.Buffer
	if code := app.Main("db-writer", "", new(app.WriterOptions), []string{"--batch", "12", "--print-config"}, &out, &stderr); code != app.ExitDone {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	for _, want := range []string{"batch: 12", "store: sqlite:env.db"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

func TestMain_wrongUseEndsBeforeAnythingStarts(t *testing.T) {
	tests := []struct {
		name string
		s    app.Service
		args []string
		says string
	}{
		{"unknown flag", new(app.TapOptions), []string{"--inn", "x"}, "--in"},
		{"unknown input scheme", new(app.TapOptions), []string{"--in", "hepp+udp://:9060"}, "hep+udp"},
		{"unknown input option", new(app.TapOptions), []string{"--in", "hep+udp://:9060?colour=red"}, "auth"},
		{"TLS without certificate", new(app.TapOptions), []string{"--in", "hep+tls://:9061"}, "cert"},
		{"unknown mode", new(app.TapOptions), []string{"--mode", "some"}, "all"},
		{"NATS URL", new(app.TapOptions), []string{"--nats", "http://x"}, "nats"},
		{"once with a socket", new(app.TapOptions), []string{"--once"}, "pcap:FILE"},
		{"size", new(app.TapOptions), []string{"--buffer", "lots"}, "64MiB"},
		{"log level", new(app.TapOptions), []string{"--log-level", "loud"}, "debug"},
		{"no store", new(app.WriterOptions), nil, "--store"},
		{"unknown store", new(app.WriterOptions), []string{"--store", "mysql://x"}, "postgres://"},
		{"bad table name", new(app.WriterOptions), []string{"--store", "sqlite:x.db", "--table", "x; drop"}, "table"},
		{"no batch", new(app.WriterOptions), []string{"--store", "sqlite:x.db", "--batch", "0"}, "--batch"},
		{"no destination", new(app.ForwarderOptions), nil, "--to"},
		{"HEP 1 over TCP", new(app.ForwarderOptions), []string{"--to", "hep+tcp://x?version=1"}, "version"},
		{"unknown destination", new(app.ForwarderOptions), []string{"--to", "gopher://x"}, "hep+udp"},
		{"the same twice", new(app.ForwarderOptions), []string{"--to", "sip:10.0.0.1", "--to", "sip:10.0.0.1"}, "twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := app.Main("prog", "", tt.s, tt.args, &stdout, &stderr)
			if code != app.ExitUsage {
				t.Errorf("exit %d, want %d", code, app.ExitUsage)
			}
			if !strings.Contains(stderr.String(), tt.says) {
				t.Errorf("says %q, want something about %q", stderr.String(), tt.says)
			}
		})
	}
}

func TestMain_checkStartsNothing(t *testing.T) {
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	args := []string{"--store", "sqlite:" + filepath.Join(dir, "x.db"), "--check"}
	if code := app.Main("db-writer", "", new(app.WriterOptions), args, &stdout, &stderr); code != app.ExitDone {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("%v was made", entries)
	}
}

func TestRedact(t *testing.T) {
	tests := []struct{ in, want string }{
		{"postgres://u:p@h/d?sslmode=off", "postgres://u:hidden@h/d?sslmode=off"},
		{"hep+udp://h:9060?auth=k&version=2", "hep+udp://h:9060?auth=hidden&version=2"},
		{"sqlite:/var/x.db", "sqlite:/var/x.db"},
		{"edge1", "edge1"},
		{"postgres://u:p%zz@h/d", "(hidden)"},
	}
	for _, tt := range tests {
		if got := app.Redact(tt.in); got != tt.want {
			t.Errorf("Redact(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
