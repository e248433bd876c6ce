package sipmsg_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// seed gives a fuzz target messages to begin with, each with a place to cut it.
func seed(f *testing.F) {
	for _, s := range []string{
		invite, ok, register, ack, compact, folded, manners, ack + ack, "\r\n\r\n" + ack, "no SIP\r\n\r\n",
		"INVITE sip:a@b SIP/2.0\rCall-ID: x\r y\r\rbody",
		"SIP/2.0 200\nFrom: \"x\\\" <y@z>;a=\"b;tag=c\nVia: SIP / 2.0 / X [::1]:5 ;;branch = d , e\n\n",
	} {
		f.Add([]byte(s), uint(len(s)/2))
	}
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) == 0 {
		f.Fatalf("no recorded messages: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint(len(b)/3))
	}
}

func FuzzScan(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte, cut uint) {
		before := bytes.Clone(b)
		var m, again, part sipmsg.Message
		sipmsg.Scan(&m, b)
		bounds(t, &m, b)

		again = m
		if sipmsg.Scan(&again, b); again != m {
			t.Fatalf("scanned twice: got %+v, want %+v", again, m)
		}
		if got := sipmsg.IsSIP(b); got != (m.Request || m.Response) {
			t.Fatalf("IsSIP: got %v, want %v", got, !got)
		}

		prefix := b[:cut%uint(len(b)+1)]
		sipmsg.Scan(&part, prefix)
		bounds(t, &part, prefix)
		if part.Complete() && part.Flags&sipmsg.NotSIP == 0 && part.ContentLength >= 0 && part != m {
			t.Fatalf("complete after %d bytes: got %+v, want %+v", len(prefix), part, m)
		}

		messages := 0
		for rest := b; len(rest) > 0; messages++ {
			sipmsg.Scan(&m, rest)
			rest = rest[m.End:]
		}
		if messages > len(b) || !bytes.Equal(b, before) {
			t.Fatalf("%d messages in %d bytes, changed: %v", messages, len(b), !bytes.Equal(b, before))
		}
	})
}

// bounds checks that all of m lies in b, in order, and that no word holds a line end.
func bounds(t *testing.T, m *sipmsg.Message, b []byte) {
	t.Helper()
	if len(b) > 0 && m.End <= 0 || m.End > len(b) || m.Start > m.Fields.End() && m.Flags&sipmsg.KeepAlive == 0 {
		t.Fatalf("start %d, fields %v, end %d of %d", m.Start, m.Fields, m.End, len(b))
	}
	if m.Body.End() != m.End || m.Flags&sipmsg.KeepAlive == 0 && int(m.Body.Off) != m.Fields.End() {
		t.Fatalf("body %v does not go from %d to %d", m.Body, m.Fields.End(), m.End)
	}
	for _, s := range []sipmsg.Span{m.FromURI, m.ToURI, m.UserAgent, m.ContentType, m.Fields} {
		within(t, s, m)
	}
	for i, s := range []sipmsg.Span{
		m.Method, m.StatusText, m.Reason, m.RequestURI, m.RURIUser, m.RURIHost, m.CallID, m.CSeqMethod,
		m.FromUser, m.FromHost, m.FromTag, m.ToUser, m.ToHost, m.ToTag, m.ViaTransport, m.ViaHost, m.ViaBranch,
	} {
		within(t, s, m)
		if bytes.ContainsAny(s.Of(b), "\r\n") {
			t.Fatalf("word %d holds a line end: %q", i, s.Of(b))
		}
	}
}

func within(t *testing.T, s sipmsg.Span, m *sipmsg.Message) {
	t.Helper()
	if s.End() > m.End || !s.Empty() && int(s.Off) < m.Start {
		t.Fatalf("span %v is outside of the message from %d to %d", s, m.Start, m.End)
	}
}

func FuzzHeaders(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte, _ uint) {
		var m sipmsg.Message
		sipmsg.Scan(&m, b)
		first := true
		for name, value := range sipmsg.Headers(b) {
			if len(name) == 0 || bytes.ContainsAny(name, "\r\n:") {
				t.Fatalf("name %q", name)
			}
			if folded := bytes.ContainsAny(value, "\r\n"); folded && m.Flags&sipmsg.Folded == 0 {
				t.Fatalf("value %q is folded, but not flagged", value)
			}
			if bytes.ContainsAny(sipmsg.Unfold(nil, value), "\r\n") {
				t.Fatalf("Unfold(%q) is not one line", value)
			}
			got, found := m.Header(b, string(name))
			if !found || first && !bytes.Equal(got, value) {
				t.Fatalf("Header(%q): got %q, %v, want %q, true", name, got, found, value)
			}
			first = false
		}
		if _, found := m.Header(b, "X-Not-There-At-All"); found && !bytes.Contains(bytes.ToLower(b), []byte("x-not-there-at-all")) {
			t.Fatal("found a header field that is not there")
		}
	})
}
