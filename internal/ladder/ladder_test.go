package ladder_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/ladder"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

var update = flag.Bool("update", false, "write the golden files anew")

// message is an event with the given start line, for drawing.
func message(at time.Duration, src, dst, text string) trace.Event {
	e := trace.Event{
		Time:      time.Date(2026, 11, 22, 20, 15, 3, 120_000_000, time.UTC).Add(at),
		Transport: trace.UDP, Type: trace.TypeSIP, Payload: []byte(text),
	}
	if src != "" {
		e.Src = netip.MustParseAddrPort(src)
	}
	if dst != "" {
		e.Dst = netip.MustParseAddrPort(dst)
	}
	return e
}

const (
	a = "192.0.2.10:5060"
	p = "198.51.100.1:5060"
	b = "[2001:db8::20]:5060"

	invite  = "INVITE sip:bob@example.com SIP/2.0\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: 3\r\n\r\nv=0"
	trying  = "SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n"
	ringing = "SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n\r\n"
	ok      = "SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\r\nv=0"
)

func TestDraw(t *testing.T) {
	logged := message(4*time.Millisecond, p, p, "route chosen: carrier-3 \x1b[31mred")
	logged.Type = trace.TypeLog
	tests := []struct {
		name   string
		events []trace.Event
		raw    bool
	}{
		{"call", []trace.Event{
			message(0, a, p, invite), message(time.Millisecond, p, a, trying), message(2*time.Millisecond, p, b, invite),
			message(502*time.Millisecond, p, b, invite), message(600*time.Millisecond, b, p, ringing),
			message(601*time.Millisecond, p, a, ringing), message(2900*time.Millisecond, b, p, ok), message(2901*time.Millisecond, p, a, ok),
		}, false},
		{"odd", []trace.Event{
			message(0, a, a, invite), message(time.Millisecond, "", p, "garbage"), logged,
			message(5*time.Millisecond, b, a, "SIP/2.0 999 A reason phrase that is much longer than columns usually are apart\r\n\r\n"),
		}, false},
		{"raw", []trace.Event{message(0, a, p, invite), message(time.Millisecond, p, a, "SIP/2.0 200 \x1b]0;pwned\a\r\nX: \xff\x00\tend\r\n\r\n")}, true},
		{"nothing", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := ladder.Draw(&got, tt.events, ladder.Options{Raw: tt.raw}); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".txt", got.Bytes())
			if bytes.ContainsAny(got.Bytes(), "\x1b\a\x00\r") {
				t.Error("the drawing moves the terminal's cursor")
			}
		})
	}
}

// golden compares got with a file, or writes the file with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("drawing differs from %s; got:\n%s", path, got)
	}
}
