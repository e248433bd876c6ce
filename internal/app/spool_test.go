package app

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestOpenSpool_aFolderThatWasAskedForMustWork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))

	asked := TapFlags{SpoolFlags: SpoolFlags{Spool: filepath.Join(file, "spool")}}
	if _, err := openSpool(&asked, prometheus.NewRegistry(), quiet); err == nil || !strings.Contains(err.Error(), "not a directory") || !strings.Contains(err.Error(), "--spool") {
		t.Errorf("error = %v, want what is wrong and what to do", err)
	}
	byDefault := TapFlags{Data: file}
	var said strings.Builder
	s, err := openSpool(&byDefault, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&said, nil)))
	if s != nil || err != nil || !strings.Contains(said.String(), "level=WARN") {
		t.Errorf("default folder: %v, %v, said %q; want none, and a warning", s, err, said.String())
	}
}

func TestOpenSpool_aSecondTapIsRefused(t *testing.T) {
	dir := t.TempDir()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	f := TapFlags{SpoolFlags: SpoolFlags{Spool: dir}}
	s, err := openSpool(&f, prometheus.NewRegistry(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := "spool " + dir + ": in use by another process: give another --spool, or --spool off"
	if _, err := openSpool(&f, prometheus.NewRegistry(), quiet); err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
}

func TestSpoolDir(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/tap")
	tests := []struct {
		name  string
		flags TapFlags
		dir   string
		asked bool
	}{
		{"a service's own folder", TapFlags{}, "/var/lib/tap/spool", false},
		{"beside the state", TapFlags{Data: "/data"}, "/data/spool", false},
		{"named", TapFlags{Data: "/data", SpoolFlags: SpoolFlags{Spool: "/fast"}}, "/fast", true},
		{"off", TapFlags{Data: "/data", SpoolFlags: SpoolFlags{Spool: "off"}}, "", false},
		{"no folder at all", TapFlags{Data: "off"}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if dir, asked := tt.flags.spoolDir(); dir != tt.dir || asked != tt.asked {
				t.Errorf("spoolDir = %q, %v, want %q, %v", dir, asked, tt.dir, tt.asked)
			}
		})
	}
}
