package forward

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// copied is what is sent for e, with X-Siptrace headers.
func copied(t testing.TB, e trace.Event) string {
	t.Helper()
	enc := sipEncoder{xheaders: true}
	b, err := enc.append([]byte("before"), &e)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := bytes.CutPrefix(b, []byte("before"))
	if !ok {
		t.Fatalf("got %q, want what was there before in front", b)
	}
	return string(rest)
}

func TestXHeaders_standInFrontOfTheEmptyLine(t *testing.T) {
	const added = "X-Siptrace-Fromip: udp:192.0.2.1:5060\r\nX-Siptrace-Toip: udp:192.0.2.2:5060\r\n" +
		"X-Siptrace-Time: 1772366400 7000\r\nX-Siptrace-Method: M\r\nX-Siptrace-Dir: in\r\n"
	tests := []struct{ name, in, want, method string }{
		{"a request", "BYE sip:a SIP/2.0\r\nCSeq: 1 BYE\r\n\r\nbody\r\n\r\n", "BYE sip:a SIP/2.0\r\nCSeq: 1 BYE\r\n+\r\nbody\r\n\r\n", "BYE"},
		{"a reply", "SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n", "SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n+\r\n", "INVITE"},
		{"a request whose CSeq lies", "ACK sip:a SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n", "ACK sip:a SIP/2.0\r\nCSeq: 1 INVITE\r\n+\r\n", "ACK"},
		{"a reply without CSeq", "SIP/2.0 200 OK\r\nX: y\r\n\r\n", "SIP/2.0 200 OK\r\nX: y\r\n+\r\n", "UNKNOWN"},
		{"no header fields", "BYE sip:a SIP/2.0\r\n\r\nbody", "BYE sip:a SIP/2.0\r\n+\r\nbody", "BYE"},
		{"LF alone", "BYE sip:a SIP/2.0\nX: y\n\nbody\r\n\r\n", "BYE sip:a SIP/2.0\nX: y\n+\nbody\r\n\r\n", "BYE"},
		{"CR alone", "BYE sip:a SIP/2.0\rX: y\r\rbody", "BYE sip:a SIP/2.0\rX: y\r+\rbody", "BYE"},
		{"NUL in the body", "BYE sip:a SIP/2.0\r\nX: y\r\n\r\n\x00\x01", "BYE sip:a SIP/2.0\r\nX: y\r\n+\r\n\x00\x01", "BYE"},
		{"line ends in front", "\r\n\r\nBYE sip:a SIP/2.0\r\nX: y\r\n\r\n", "\r\n\r\nBYE sip:a SIP/2.0\r\nX: y\r\n+\r\n", "BYE"},
		{"no empty line", "BYE sip:a SIP/2.0\r\nX: y\r\n", "BYE sip:a SIP/2.0\r\nX: y\r\n+\r\n", "BYE"},
		{"no line end either", "BYE sip:a SIP/2.0\r\nX: y", "BYE sip:a SIP/2.0\r\nX: y\r\n+\r\n", "BYE"},
		{"a keep-alive", "\r\n\r\n", "\r\n+\r\n", "UNKNOWN"},
		{"nothing", "", "+\r\n", "UNKNOWN"},
		{"a method too long to read back", strings.Repeat("M", 51) + " sip:a SIP/2.0\r\n\r\n", strings.Repeat("M", 51) + " sip:a SIP/2.0\r\n+\r\n", "UNKNOWN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := invite(7000)
			e.Payload = []byte(tt.in)
			want := strings.Replace(tt.want, "+", strings.Replace(added, "Method: M", "Method: "+tt.method, 1), 1)
			if got := copied(t, e); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestXHeaders_haveAllFiveValuesWhateverTheEventLacks(t *testing.T) {
	tests := []struct {
		name     string
		change   func(e *trace.Event)
		from, to string
		dir      string
	}{
		{"IPv6", func(e *trace.Event) {
			e.Src = netip.MustParseAddrPort("[2001:db8::1]:5061")
			e.Transport = trace.TLS
			e.Direction = trace.Out
		}, "tls:[2001:db8::1]:5061", "tls:192.0.2.2:5060", "out"},
		{"IPv4 in IPv6", func(e *trace.Event) { e.Src = netip.MustParseAddrPort("[::ffff:192.0.2.9]:1") }, "udp:192.0.2.9:1", "udp:192.0.2.2:5060", "in"},
		{"a zone", func(e *trace.Event) { e.Src = netip.MustParseAddrPort("[fe80::1%a]:1") }, "udp:[fe80::1]:1", "udp:192.0.2.2:5060", "in"},
		{"nothing known", func(e *trace.Event) {
			e.Src, e.Dst = netip.AddrPort{}, netip.AddrPort{}
			e.Transport, e.Direction = trace.TransportUnknown, trace.DirectionUnknown
		}, "any:255.255.255.255:5060", "any:255.255.255.255:5060", "in"},
		{"no transport", func(e *trace.Event) { e.Transport = trace.TransportUnknown }, "udp:192.0.2.1:5060", "udp:192.0.2.2:5060", "in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := invite(1)
			tt.change(&e)
			got := copied(t, e)
			want := "X-Siptrace-Fromip: " + tt.from + "\r\nX-Siptrace-Toip: " + tt.to + "\r\nX-Siptrace-Time: 1772366400 1\r\n" +
				"X-Siptrace-Method: INVITE\r\nX-Siptrace-Dir: " + tt.dir + "\r\n\r\n"
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		})
	}
}

func TestSIP_leavesAloneWhatIsNoSIP(t *testing.T) {
	for _, xheaders := range []bool{false, true} {
		enc := sipEncoder{xheaders: xheaders}
		e := invite(1)
		e.Type = trace.TypeLog
		b, err := enc.append([]byte("before"), &e)
		if !errors.Is(err, skip(skipNotSIP)) || string(b) != "before" {
			t.Errorf("append = %q, %v, want what was there and %v", b, err, skip(skipNotSIP))
		}
	}
}

func FuzzXHeaders(f *testing.F) {
	for _, b := range recorded(f, "sip_plain") {
		f.Add(b)
	}
	f.Add([]byte("\r\n\r\n"))
	f.Add([]byte("A\r\r\n\n\r\n"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		e := invite(7000)
		e.Payload = payload
		before := bytes.Clone(payload)
		got := []byte(copied(t, e))
		if !bytes.Equal(payload, before) {
			t.Fatal("the payload was changed")
		}
		if bytes.Contains(payload, []byte("X-Siptrace")) {
			return // which of them are ours is not to be told
		}
		at := bytes.Index(got, []byte("X-Siptrace-Fromip: "))
		m := xheaders.FindIndex(got[max(at, 0):])
		if m == nil || m[0] != 0 {
			t.Fatalf("no headers in %q", got)
		}
		rest := append(bytes.Clone(got[:at]), got[at+m[1]:]...)
		rest = bytes.TrimRight(rest, "\r\n")
		if !bytes.Equal(rest, bytes.TrimRight(payload, "\r\n")) {
			t.Fatalf("without the headers %q, want %q", rest, payload)
		}
		if at > 0 && got[at-1] != '\n' && got[at-1] != '\r' {
			t.Fatalf("the headers do not begin a line: %q", got)
		}
	})
}
