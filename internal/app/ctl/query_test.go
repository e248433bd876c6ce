package ctl

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestParseTime_readsWhatPeopleWrite(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, zone)
	tests := []struct {
		in   string
		want time.Time
	}{
		{"2026-11-22T08:00:00Z", time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)},
		{"2026-11-22T08:00:00.123456+02:00", time.Date(2026, 11, 22, 6, 0, 0, 123456000, time.UTC)},
		{"2026-11-21 08:15", time.Date(2026, 11, 21, 8, 15, 0, 0, zone)},
		{"2026-11-21 08:15:30.5", time.Date(2026, 11, 21, 8, 15, 30, 500_000_000, zone)},
		{"2026-11-21", time.Date(2026, 11, 21, 0, 0, 0, 0, zone)},
		{"08:15", time.Date(2026, 11, 22, 8, 15, 0, 0, zone)},
	}
	for _, tt := range tests {
		if got, err := parseTime(tt.in, now); err != nil || !got.Equal(tt.want) {
			t.Errorf("%s = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "yesterday", "25:00", "2026-13-01"} {
		if got, err := parseTime(bad, now); err == nil {
			t.Errorf("%q read as %v", bad, got)
		}
	}
}

func TestFilter_readsAddresses(t *testing.T) {
	tests := []struct {
		in, prefix string
		port       uint16
	}{
		{"10.0.0.1", "10.0.0.1/32", 0},
		{"10.0.0.1:5060", "10.0.0.1/32", 5060},
		{"10.1.2.3/8", "10.0.0.0/8", 0},
		{"2001:db8::1", "2001:db8::1/128", 0},
		{"[2001:db8::1]", "2001:db8::1/128", 0},
		{"[2001:db8::1]:5061", "2001:db8::1/128", 5061},
	}
	for _, tt := range tests {
		var q trace.Query
		if err := (&FilterFlags{Addr: tt.in}).apply(&q); err != nil || q.Addr.String() != tt.prefix || q.Port != tt.port {
			t.Errorf("%s = %v port %d, %v; want %s port %d", tt.in, q.Addr, q.Port, err, tt.prefix, tt.port)
		}
	}
	var q trace.Query
	if err := (&FilterFlags{Addr: "pbx"}).apply(&q); err == nil {
		t.Error("address pbx accepted")
	}
}

func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

func TestHEPDecode(t *testing.T) {
	const sample = "48455033 0071 000000010007 02 000000020007 11 00000003000a d4ca0001 00000004000a 52740030 " +
		"000000070008 2eea 000000080008 13c4 00000009000a 4e4982cb 0000000a000a 0001d4c0 0000000b0007 01 " +
		"0000000c000a 000000e4 0000000f0014 494e56495445207369703a626f62\n"
	const want = `{"version":3,"family":2,"proto":17,"src":"212.202.0.1:12010","dst":"82.116.0.48:5060",` +
		`"time":"2011-08-15T20:34:19.12Z","type":1,"capture_id":228,"payload":"SU5WSVRFIHNpcDpib2I="}` + "\n"
	if code, out, _ := run(t, sample, "hep", "decode", "--hex", "-"); code != 0 || out != want {
		t.Errorf("exit %d\n got %s\nwant %s", code, out, want)
	}
	code, out, _ := run(t, "not hex\n"+sample+"48455033 0007 00\n", "hep", "decode", "--hex", "-")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 1 || len(lines) != 3 || !strings.HasPrefix(lines[0], `{"error":`) || lines[1]+"\n" != want || !strings.HasPrefix(lines[2], `{"`) {
		t.Errorf("exit %d, want 1, with an error between good packets:\n%s", code, out)
	}
	if code, out, _ := run(t, "", "hep", "decode", "-"); code != 1 || !strings.Contains(out, "error") {
		t.Errorf("nothing decoded to %d %q, want an error and exit 1", code, out)
	}
	if code, _, errs := run(t, "", "hep", "decode", "/nonexistent"); code != 1 || !strings.Contains(errs, "/nonexistent") {
		t.Errorf("missing file: exit %d, says %q", code, errs)
	}
}

func TestRun_wrongUse(t *testing.T) {
	tests := [][]string{
		{"serch"}, {"search", "--limit", "few"}, {"search", "--since", "yesterday"}, {"search", "--from", "25:00"},
		{"search", "--since", "1h", "--from", "08:00"}, {"search", "--from", "2026-01-02", "--to-time", "2026-01-01"},
		{"search", "--store", "mysql://x"}, {"flow"}, {"trace"}, {"trace", "on", "--for", "soon"}, {"trace", "check", "--nats", "ftp://x"},
		{"demo", "sip:x"}, {"up", "--in", "nonsense"}, {"up", "--nats-listen", "x"}, {"up", "--dir", ""}, {"tail", "--color", "pink"},
	}
	for _, args := range tests {
		if code, _, errs := run(t, "", args...); code != 2 || !strings.Contains(errs, "try: ctl --help") {
			t.Errorf("ctl %v: exit %d, says %q; want 2 and where help is", args, code, errs)
		}
	}
}

func TestRun_helpShowsExamples(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"search", "--help"}, {"flow", "--help"}, {"up", "--help"}, {"tail", "--help"}, {"hep", "decode", "--help"}} {
		if code, out, _ := run(t, "", args...); code != 0 || !strings.Contains(out, "Example") {
			t.Errorf("ctl %v: exit %d, no example in:\n%s", args, code, out)
		}
	}
}
