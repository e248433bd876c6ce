package sipmsg_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// manners has header fields written in many ways.
var manners = crlf(`
OPTIONS sip:a@b SIP/2.0
k: timer
SUPPORTED : 100rel
X-Siptrace-Fromip: udp:192.0.2.1:5060
Subject:
Refer-To: <sip:c@d>
 ;folded
Z: last letter
no colon here
m:<sip:a@b>
Expires:  60

X-Body: not a header field
`)

func TestHeader_findsTheFirstOfAName(t *testing.T) {
	tests := []struct {
		name, want string
		found      bool
	}{
		{"Supported", "timer", true},
		{"k", "timer", true},
		{"K", "timer", true},
		{"x-siptrace-fromip", "udp:192.0.2.1:5060", true},
		{"Subject", "", true},
		{"s", "", true},
		{"r", "<sip:c@d>\r\n ;folded", true},
		{"Contact", "<sip:a@b>", true},
		{"z", "last letter", true},
		{"EXPIRES", "60", true},
		{"Event", "", false},
		{"X-Body", "", false},
		{"no colon here", "", false},
		{"", "", false},
	}
	b := []byte(manners)
	var m sipmsg.Message
	sipmsg.Scan(&m, b)
	for _, tt := range tests {
		got, found := m.Header(b, tt.name)
		if string(got) != tt.want || found != tt.found {
			t.Errorf("Header(%q): got %q, %v, want %q, %v", tt.name, got, found, tt.want, tt.found)
		}
	}
}

func TestHeader_knowsEveryCompactForm(t *testing.T) {
	forms := map[string]string{
		"a": "Accept-Contact", "b": "Referred-By", "c": "Content-Type", "d": "Request-Disposition",
		"e": "Content-Encoding", "f": "From", "i": "Call-ID", "j": "Reject-Contact", "k": "Supported",
		"l": "Content-Length", "m": "Contact", "n": "Identity-Info", "o": "Event", "r": "Refer-To",
		"s": "Subject", "t": "To", "u": "Allow-Events", "v": "Via", "x": "Session-Expires", "y": "Identity",
	}
	for short, long := range forms {
		for wire, name := range map[string]string{short: long, long: short} {
			b := []byte("OPTIONS sip:a@b SIP/2.0\r\n" + wire + ": 1\r\n\r\n")
			var m sipmsg.Message
			sipmsg.Scan(&m, b)
			if got, _ := m.Header(b, name); string(got) != "1" {
				t.Errorf("Header(%q) of a field %q: got %q, want 1", name, wire, got)
			}
		}
	}
}

func TestHeaders_walksAllInOrder(t *testing.T) {
	var got []string
	for name, value := range sipmsg.Headers([]byte("\r\n" + manners)) {
		got = append(got, fmt.Sprintf("%s=%s", name, value))
	}
	want := []string{
		"k=timer", "SUPPORTED=100rel", "X-Siptrace-Fromip=udp:192.0.2.1:5060", "Subject=",
		"Refer-To=<sip:c@d>\r\n ;folded", "Z=last letter", "m=<sip:a@b>", "Expires=60",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHeaders_stopsWhenAsked(t *testing.T) {
	n := 0
	for range sipmsg.Headers([]byte(manners)) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("got %d fields, want 1", n)
	}
}

func TestFields_coverTheHeader(t *testing.T) {
	b := []byte("\r\nOPTIONS sip:a@b SIP/2.0\r\nX: 1\r\nY: 2\r\n\r\nbody")
	var m sipmsg.Message
	sipmsg.Scan(&m, b)
	if got, want := string(m.Fields.Of(b)), "X: 1\r\nY: 2\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if m.Start != 2 {
		t.Errorf("start: got %d, want 2", m.Start)
	}
}

func TestUnfold_makesOneLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"one", "one"},
		{"one two", "one two"},
		{"one\r\n two", "one two"},
		{"one  \r\n\t  two\n three", "one two three"},
		{"one\r\n \r\n two", "one two"},
		{"one \t two", "one \t two"},
	}
	for _, tt := range tests {
		if got := string(sipmsg.Unfold([]byte("> "), []byte(tt.in))); got != "> "+tt.want {
			t.Errorf("Unfold(%q): got %q, want %q", tt.in, got, "> "+tt.want)
		}
	}
}

func TestEventMethod_isTheTransactionsMethod(t *testing.T) {
	tests := []struct{ in, want string }{
		{"BYE sip:a@b SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n", "BYE"},
		{"SIP/2.0 200 OK\r\nCSeq: 1 BYE\r\n\r\n", "BYE"},
		{"SIP/2.0 200 OK\r\n\r\n", ""},
		{"gibberish\r\nCSeq: 1 BYE\r\n\r\n", "BYE"},
		{"\r\n\r\n", ""},
	}
	for _, tt := range tests {
		b := []byte(tt.in)
		var m sipmsg.Message
		sipmsg.Scan(&m, b)
		if got := string(m.EventMethod(b)); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestIsSIP_looksAtTheStartLine(t *testing.T) {
	tests := []struct {
		in   string
		want bool
	}{
		{invite, true},
		{ok, true},
		{"\r\n\x00\r\n" + ack, true},
		{"SIP/2.0 200", true},
		{"INVITE sip:a@b SIP/2.0", true},
		{"INVITE tel:1", true},
		{"INVITE sip:a@b SIP/2.0\rVia", true},
		{" INVITE sip:a@b SIP/2.0", true},
		{"", false},
		{"\r\n\r\n", false},
		{"SIP/2.0", true},
		{"SIP/two 200 OK", false},
		{"SIPPING sip", false},
		{"INVITE", false},
		{"a=sendrecv\r\nINVITE sip:a@b SIP/2.0\r\n", false},
		{"GET / HTTP/1.1\r\n", false},
		{"\x80\x00sip:a SIP/2.0", false},
		{"<a sip:b SIP/2.0", false},
	}
	for _, tt := range tests {
		if got := sipmsg.IsSIP([]byte(tt.in)); got != tt.want {
			t.Errorf("IsSIP(%.30q): got %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestComplete_waitsForTheWholeMessage(t *testing.T) {
	for _, in := range []string{invite, ok, ack, folded} {
		for cut := range len(in) {
			var m sipmsg.Message
			if sipmsg.Scan(&m, []byte(in[:cut])); m.Complete() {
				t.Fatalf("%.10q cut to %d of %d bytes: got complete, want not", in, cut, len(in))
			}
		}
		var m sipmsg.Message
		if sipmsg.Scan(&m, []byte(in+invite)); !m.Complete() || m.End != len(in) {
			t.Errorf("%.10q: got complete %v, end %d, want true, %d", in, m.Complete(), m.End, len(in))
		}
	}
}

func TestFlags_haveNames(t *testing.T) {
	if got, want := (sipmsg.NotSIP | sipmsg.Folded | sipmsg.MissingVia).String(), "not-sip folded missing-via"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := sipmsg.Flags(0).String(); got != "" {
		t.Errorf("no flag: got %q, want none", got)
	}
	if !(sipmsg.Folded | sipmsg.NoEnd).Has(sipmsg.NoEnd) || sipmsg.Folded.Has(sipmsg.NoEnd) {
		t.Error("Has does not tell whether a flag is set")
	}
}
