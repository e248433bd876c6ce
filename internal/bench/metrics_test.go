package bench

import (
	"slices"
	"testing"
)

const page = `# HELP siptrace_tap_hep_dropped_total HEP packets that became no event, by reason.
# TYPE siptrace_tap_hep_dropped_total counter
siptrace_tap_hep_dropped_total{reason="kernel",source="hep+udp://127.0.0.1:9060"} 12
siptrace_tap_hep_dropped_total{reason="not hep",source="hep+udp://127.0.0.1:9060"} 3
siptrace_tap_events_received_total{source="0 hep+udp://127.0.0.1:9060"} 1.3e+06

go_info{version="go1.26.8"} 1
process_open_fds 12
`

func TestParseMetrics(t *testing.T) {
	m, err := parseMetrics(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, with string
		want       uint64
	}{
		{"siptrace_tap_hep_dropped_total", "", 15},
		{"siptrace_tap_hep_dropped_total", `reason="kernel"`, 12},
		{"siptrace_tap_events_received_total", "", 1_300_000},
		{"process_open_fds", "", 12},
		{"siptrace_tap", "", 0},
	} {
		if got := m.sum(tt.name, tt.with); got != tt.want {
			t.Errorf("sum(%q, %q) = %d, want %d", tt.name, tt.with, got, tt.want)
		}
	}
	for _, bad := range []string{"metric", "metric x"} {
		if _, err := parseMetrics(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestCounters_losses(t *testing.T) {
	base := counters{kernel: 5, overflow: 1}
	end := counters{kernel: 15, overflow: 4, rejected: 2}
	got := end.losses(base, 20)
	want := []Loss{{"kernel: socket buffer of the tap full", 10}, {"tap: buffer before the stream full", 3}, {"db-writer: rejected", 2}, {"nobody knows", 5}}
	if !slices.Equal(got, want) {
		t.Errorf("losses = %v, want %v", got, want)
	}
	if got := base.losses(base, 0); len(got) != 0 {
		t.Errorf("losses of nothing = %v", got)
	}
}
