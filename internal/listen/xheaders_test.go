package listen

import (
	"bytes"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// fiveHeaders are the X-Siptrace headers as siptrace writes them.
const fiveHeaders = "X-Siptrace-Fromip: udp:192.0.2.1:5060\r\nX-Siptrace-Toip: tcp:198.51.100.2:5070\r\n" +
	"X-Siptrace-Time: 1795374357 7000\r\nX-Siptrace-Method: INVITE\r\nX-Siptrace-Dir: out\r\n"

// read cuts the headers out of a message.
func read(msg string) (xheaders, string) {
	var x xheaders
	rest := x.cut([]byte(msg))
	return x, string(rest)
}

func TestXHeaders_sayWhatTheFirstNodeSaw(t *testing.T) {
	x, rest := read("BYE sip:a SIP/2.0\r\nX: y\r\n" + fiveHeaders + "\r\nbody")
	want := xheaders{
		found: xFrom | xTo | xTime | xMethod | xDir, good: xFrom | xTo | xTime | xMethod | xDir,
		transport: trace.TCP, src: src, dst: dst, time: time.Unix(1795374357, 7000_000), direction: trace.Out,
	}
	if x != want || !x.addresses() {
		t.Errorf("got  %+v\nwant %+v", x, want)
	}
	if rest != "BYE sip:a SIP/2.0\r\nX: y\r\n\r\nbody" {
		t.Errorf("left %q", rest)
	}
}

func TestXHeaders_cutNothingButThemselves(t *testing.T) {
	const body = "\r\nbody\r\n" + fiveHeaders // looks like it, and is none
	tests := []struct{ name, in string }{
		{"a request", "BYE sip:a SIP/2.0\r\nCSeq: 1 BYE\r\n+" + body},
		{"no other header", "BYE sip:a SIP/2.0\r\n+" + body},
		{"in front of others", "BYE sip:a SIP/2.0\r\n+CSeq: 1 BYE\r\n" + body},
		{"between others", "BYE sip:a SIP/2.0\r\nCSeq: 1 BYE\r\n+Via: x\r\n" + body},
		{"LF alone", "BYE sip:a SIP/2.0\nCSeq: 1 BYE\n+\nbody\n"},
		{"CR alone", "BYE sip:a SIP/2.0\rCSeq: 1 BYE\r+\rbody\r"},
		{"CR CR LF", "BYE sip:a SIP/2.0\r\r\nCSeq: 1 BYE\r\r\n+\r\r\nbody"},
		{"line ends in front", "\r\n\r\nBYE sip:a SIP/2.0\r\nX: y\r\n+\r\n"},
		{"a folded field in front", "BYE sip:a SIP/2.0\r\nX: y\r\n  z\r\n+\r\n"},
		{"NUL in the body", "BYE sip:a SIP/2.0\r\nX: y\r\n+\r\n\x00\x01\xff"},
		{"no empty line", "BYE sip:a SIP/2.0\r\nX: y\r\n+"},
		{"a keep-alive", "\r\n+\r\n"},
		{"names that are like it", "BYE sip:a SIP/2.0\r\nX-Siptrace-Tim: 1 1\r\nX-Siptrace-: 1\r\nX-Siptrace\r\nX-Siptrace-Time\r\n+\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head, tail, _ := strings.Cut(tt.in, "+")
			x, rest := read(head + fiveHeaders + tail)
			if rest != head+tail {
				t.Errorf("left %q\nwant %q", rest, head+tail)
			}
			if x.src != src || x.dst != dst || x.direction != trace.Out {
				t.Errorf("read %+v", x)
			}
		})
	}
}

func TestXHeaders_mayComeInAnyOrderAndCase(t *testing.T) {
	x, rest := read("BYE sip:a SIP/2.0\r\nx-siptrace-dir:out\r\nA: b\r\nX-SIPTRACE-TIME :  1795374357   7000 \r\nC: d\r\n" +
		"X-Siptrace-Toip: TCP:198.51.100.2:5070\r\nX-sIpTrAcE-fRoMiP:\tudp:192.0.2.1:5060\r\nX-Siptrace-Dir: in\r\n\r\n")
	if rest != "BYE sip:a SIP/2.0\r\nA: b\r\nC: d\r\n\r\n" {
		t.Errorf("left %q", rest)
	}
	if x.src != src || x.dst != dst || x.transport != trace.TCP || x.direction != trace.Out || !x.time.Equal(time.Unix(1795374357, 7000_000)) {
		t.Errorf("read %+v", x)
	}
}

func TestXHeaders_values(t *testing.T) {
	tests := []struct {
		name, line string
		want       xheaders
	}{
		{"IPv6", "Fromip: tls:[2001:db8::1]:5061", xheaders{good: xFrom, transport: trace.TLS, src: netip.MustParseAddrPort("[2001:db8::1]:5061")}},
		{"IPv6 without brackets", "Toip: udp:::1:15080", xheaders{good: xTo, transport: trace.UDP, dst: netip.MustParseAddrPort("[::1]:15080")}},
		{"IPv4 in IPv6", "Toip: udp:[::ffff:192.0.2.1]:1", xheaders{good: xTo, transport: trace.UDP, dst: netip.MustParseAddrPort("192.0.2.1:1")}},
		{"unknown address", "Toip: any:255.255.255.255:5060", xheaders{good: xTo}},
		{"no port", "Fromip: udp:192.0.2.1", xheaders{}},
		{"port too high", "Fromip: udp:192.0.2.1:65536", xheaders{}},
		{"port of no digits", "Fromip: udp:192.0.2.1:sip", xheaders{}},
		{"a name", "Fromip: udp:example.com:5060", xheaders{}},
		{"a zone", "Fromip: udp:[fe80::1%eth0]:5060", xheaders{}},
		{"no transport", "Fromip: 192.0.2.1:5060", xheaders{}},
		{"empty transport", "Fromip: :192.0.2.1:5060", xheaders{}},
		{"no value", "Fromip:", xheaders{}},
		{"time of the core engine", "Time: 0 0", xheaders{}},
		{"seconds alone", "Time: 1795374357", xheaders{}},
		{"a million microseconds", "Time: 1795374357 1000000", xheaders{}},
		{"a time after 2106", "Time: 4294967296 0", xheaders{}},
		{"the last time there is", "Time: 4294967295 999999", xheaders{good: xTime, time: time.Unix(4294967295, 999999000)}},
		{"a negative time", "Time: -1 5", xheaders{}},
		{"endless digits", "Time: 99999999999999999999999999 5", xheaders{}},
		{"no method", "Method: ", xheaders{}},
		{"in", "Dir: in", xheaders{good: xDir, direction: trace.In}},
		{"another direction", "Dir: inwards", xheaders{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, rest := read("BYE sip:a SIP/2.0\r\nX-Siptrace-" + tt.line + "\r\n\r\n")
			if got.found == 0 || rest != "BYE sip:a SIP/2.0\r\n\r\n" {
				t.Errorf("found %b, left %q: want the line gone", got.found, rest)
			}
			got.found = 0
			if !got.time.Equal(tt.want.time) {
				t.Errorf("time %v, want %v", got.time, tt.want.time)
			}
			got.time, tt.want.time = time.Time{}, time.Time{}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// Of several sets the first is the first node's, as in Kamailio.
func TestXHeaders_ofSeveralSetsTheFirstCounts(t *testing.T) {
	second := strings.NewReplacer("192.0.2.1", "203.0.113.9", "1795374357", "1895374357", "out", "in").Replace(fiveHeaders)
	x, rest := read("BYE sip:a SIP/2.0\r\n" + fiveHeaders + second + "\r\n")
	if x.src != src || x.time.Unix() != 1795374357 || x.direction != trace.Out {
		t.Errorf("read %+v", x)
	}
	if rest != "BYE sip:a SIP/2.0\r\n\r\n" {
		t.Errorf("left %q", rest)
	}
}

// fuzzLine is one of the five lines, with its line end and what continues it.
var fuzzLine = regexp.MustCompile(`(?i)^x-siptrace-(fromip|toip|time|method|dir)[ \t]*:`)

// without is what is left of msg, worked out slowly.
func without(msg []byte) []byte {
	start := len(msg) - len(bytes.TrimLeft(msg, "\r\n\x00"))
	out, rest, gone := bytes.Clone(msg[:start]), msg[start:], false
	for len(rest) > 0 {
		end, next := lineEnd(rest, 0)
		if end == 0 {
			break
		}
		if rest[0] != ' ' && rest[0] != '\t' {
			gone = fuzzLine.Match(rest[:end])
		}
		if !gone {
			out = append(out, rest[:next]...)
		}
		rest = rest[next:]
	}
	return append(out, rest...)
}

// FuzzXHeaders holds that nothing but lines of the five is ever cut, that what
// was written is read, and that cutting again finds nothing.
func FuzzXHeaders(f *testing.F) {
	f.Add([]byte("BYE sip:a SIP/2.0\r\nX: y\r\n\r\nbody"), uint16(26))
	f.Add([]byte("BYE sip:a SIP/2.0\nX-Siptrace-Dir: in\n folded\n\n"), uint16(0))
	f.Add([]byte("\r\n\r\n"), uint16(2))
	f.Add([]byte("A\r\r\n\n\r\n\x00x-siptrace-time:"), uint16(4))
	f.Fuzz(func(t *testing.T, msg []byte, at uint16) {
		want := without(msg)
		var x xheaders
		if got := x.cut(bytes.Clone(msg)); !bytes.Equal(got, want) {
			t.Fatalf("cut %q\ngot  %q\nwant %q", msg, got, want)
		}
		var m sipmsg.Message
		if sipmsg.Scan(&m, msg); !m.Flags.Has(sipmsg.NoEnd|sipmsg.KeepAlive) && !bytes.HasSuffix(want, msg[m.Body.Off:]) {
			t.Fatalf("cut %q, body is %q\ngot %q", msg, msg[m.Body.Off:], want)
		}
		if got := x.cut(bytes.Clone(want)); !bytes.Equal(got, want) || x.found != 0 {
			t.Fatalf("cut twice %q, got %q", want, got)
		}
		// Written behind the start line, they are read and gone again.
		head, body, ok := bytes.Cut(want, []byte("\r\n"))
		if !ok || len(head) == 0 || bytes.ContainsAny(head, "\r\n\x00") || len(body) > 0 && (body[0] == ' ' || body[0] == '\t') {
			return
		}
		written := append(append(append(bytes.Clone(head), "\r\n"...), fiveHeaders...), body...)
		if got := x.cut(written); !bytes.Equal(got, want) || x.good != xFrom|xTo|xTime|xMethod|xDir || x.src != src || x.dst != dst {
			t.Fatalf("written into %q\ngot %q, %+v", want, got, x)
		}
	})
}

func BenchmarkXHeaders(b *testing.B) {
	msg := []byte(strings.Replace(invite(), "\r\n\r\n", "\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds\r\nFrom: <sip:a@example.com>;tag=1\r\n"+
		"To: <sip:b@example.com>\r\nMax-Forwards: 70\r\nContact: <sip:a@192.0.2.1>\r\nUser-Agent: bench\r\n"+fiveHeaders+"\r\n", 1))
	buf := make([]byte, len(msg))
	var x xheaders
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, msg)
		x.cut(buf)
	}
	if !x.addresses() {
		b.Fatal("not read")
	}
}
