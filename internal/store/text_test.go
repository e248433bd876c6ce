package store

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"a@b":                          "a@b",
		"grüß":                         "grüß",
		"a\x00b":                       "a\ufffdb",
		"\xff\xfe":                     "\ufffd\ufffd",
		"\xed\xa0\x80":                 "\ufffd\ufffd\ufffd", // half of a pair of UTF-16
		"\xc0\x80":                     "\ufffd\ufffd",       // NUL in two bytes
		strings.Repeat("x", 1024):      strings.Repeat("x", 1024),
		strings.Repeat("x", 1025):      strings.Repeat("x", 1024),
		strings.Repeat("ü", 600):       strings.Repeat("ü", 512),
		"x" + strings.Repeat("ü", 600): "x" + strings.Repeat("ü", 511),
		strings.Repeat("\xff", 600):    strings.Repeat("\ufffd", 341),
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%.20q…) = %.40q (%d bytes), want %.40q (%d)", in, got, len(got), want, len(want))
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		if !utf8.ValidString(got) || strings.Contains(got, "\x00") || len(got) > MaxText {
			t.Errorf("Text(%q) = %q", s, got)
		}
		if again := Text(got); again != got {
			t.Errorf("Text of it again is %q, was %q", again, got)
		}
	})
}

func TestAddr(t *testing.T) {
	for _, tt := range []struct {
		text      string
		transport trace.Transport
		addr      string
		written   string
	}{
		{"udp:192.0.2.1:5060", trace.UDP, "192.0.2.1:5060", ""},
		{"tls:[2001:db8::1]:5061", trace.TLS, "[2001:db8::1]:5061", ""},
		{"any:255.255.255.255:5060", trace.TransportUnknown, "255.255.255.255:5060", ""},
		{"udp:::1:15080", trace.UDP, "[::1]:15080", "udp:[::1]:15080"}, // without brackets, as Kamailio has it on some paths
		{"udp:2001:db8::7:5060", trace.UDP, "[2001:db8::7]:5060", "udp:[2001:db8::7]:5060"},
		{"udp:[::ffff:192.0.2.1]:5060", trace.UDP, "[::ffff:192.0.2.1]:5060", "udp:192.0.2.1:5060"},
		{"wss:[fe80::1%eth0]:443", trace.WSS, "[fe80::1%eth0]:443", ""},
	} {
		transport, addr := parseAddr([]byte(tt.text))
		if transport != tt.transport || addr != netip.MustParseAddrPort(tt.addr) {
			t.Errorf("parseAddr(%q) = %v, %v", tt.text, transport, addr)
		}
		want := tt.written
		if want == "" {
			want = tt.text
		}
		if got := string(appendAddr(nil, transport, addr)); got != want {
			t.Errorf("appendAddr = %q, want %q", got, want)
		}
	}
	for _, text := range []string{"", "udp", "udp:", "udp::", "udp:192.0.2.1", "any:255.255.255.255", "udp:host:5060", "udp:1.2.3.4:70000", ":::", "\x00:\xff:1"} {
		if _, addr := parseAddr([]byte(text)); addr.IsValid() {
			t.Errorf("parseAddr(%q) = %v", text, addr)
		}
	}
	if got := appendAddr(nil, trace.UDP, netip.AddrPort{}); len(got) > 0 {
		t.Errorf("no address is %q", got)
	}
}

func TestCheckTable(t *testing.T) {
	for _, name := range []string{"a", "sip_trace", "x9", "a_", "a" + strings.Repeat("b", 39)} {
		if err := CheckTable(name); err != nil {
			t.Error(err)
		}
		if err := CheckNewTable(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "A", "_a", "9a", "a-b", "a.b", "a b", "ä", "a\x00", "a" + strings.Repeat("b", 40)} {
		if err := CheckTable(name); !errors.Is(err, ErrTableName) {
			t.Errorf("CheckTable(%q) = %v", name, err)
		}
	}
	for _, name := range []string{"a_text", "pg_a", "sqlite_a", "a_p20261122", "a_p20261122_07", "p_p00000000"} {
		if err := CheckNewTable(name); err == nil {
			t.Errorf("CheckNewTable(%q) took it", name)
		}
	}
	for _, name := range []string{"a_p2026112", "a_p2026112x", "p20261122", "a_text2", "a_p20261122_7"} {
		if err := CheckNewTable(name); err != nil {
			t.Error(err)
		}
	}
}
