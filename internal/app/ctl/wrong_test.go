package ctl

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun_refusesWhatWouldDoHarmBeforeAnythingStarts(t *testing.T) {
	db := "sqlite:" + filepath.Join(t.TempDir(), "trace.db")
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"a ladder of no call", []string{"flow", "", "--store", db}, 2, "Call-ID is empty"},
		{"import into what no table can be called", []string{"import", "calls.pcap", "--table", "A B", "--nats", "nats://127.0.0.1:1"}, 2, "--table"},
		{"make the tables", []string{"schema", "apply", "--store", db}, 0, ""},
		{"retain a table that is not there", []string{"schema", "retain", "--keep", "30d", "--table", "sip_trac", "--store", db}, 1, "there are sip_trace"},
		{"retain one that is", []string{"schema", "retain", "--keep", "30d", "--table", "sip_trace", "--store", db}, 0, "nothing to drop"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(t.Context(), tt.args, strings.NewReader(""), &stdout, &stderr)
			if code != tt.code || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("exit code %d, %q, want %d and %q", code, &stderr, tt.code, tt.want)
			}
		})
	}
}
