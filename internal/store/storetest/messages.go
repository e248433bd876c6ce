package storetest

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func testMessages(t *testing.T, open Open) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	big := make([]byte, 1<<20)
	chacha := rand.NewChaCha8([32]byte{1})
	_, _ = chacha.Read(big) // never fails

	for _, m := range []struct {
		name    string
		payload []byte
	}{
		{"no bytes", []byte{}},
		{"a NUL", append(message("a@b", "MESSAGE"), 0)},
		{"bytes that are no UTF-8", append(message("a@b", "MESSAGE"), 0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80)},
		{"every byte", every},
		{"a megabyte", big},
		{"a keep-alive", []byte("\r\n\r\n")},
		{"only a method", []byte("INVITE")},
		{"half a header field", []byte("INVITE sip:a@b SIP/2.0\r\nCall-I")},
		{"backslashes", []byte(`\x494e56495445`)},
		{"what COPY ends with", []byte("\xff\xff\n\\.\n")},
	} {
		t.Run("keeps byte for byte: "+m.name, func(t *testing.T) {
			s := open(t, store.Options{})
			e := event("", 0, payload(m.payload))
			write(t, s, e)
			got := find(t, s, trace.Query{})
			if len(got) != 1 || !bytes.Equal(got[0].Payload, m.payload) {
				t.Fatalf("got %d events, want the one with these %d bytes", len(got), len(m.payload))
			}
		})
	}
	t.Run("the columns are those of the message", func(t *testing.T) { testColumns(t, open) })
	t.Run("finds a message without Call-ID by its correlation ID", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("", 0, payload([]byte("garbage")), func(e *trace.Event) { e.CorrelationID = []byte("corr-1") })
		write(t, s, e)
		wantFound(t, s, trace.Query{CallID: "corr-1"}, e)
	})
	for _, id := range []string{"nul\x00in@it", "latin-1 \xe4\xf6\xfc@b", "\xed\xa0\x80", strings.Repeat("long", 30_000), strings.Repeat("ü", 5_000)} {
		t.Run("finds a message by its Call-ID, whatever that is: "+strings.ToValidUTF8(id[:min(len(id), 12)], "?"), func(t *testing.T) {
			s := open(t, store.Options{})
			e := event(id, 0)
			write(t, s, e, event("other@b", 1))
			wantFound(t, s, trace.Query{CallID: id}, e)
		})
	}
	t.Run("text columns hold clean text of some length", func(t *testing.T) {
		s := open(t, store.Options{})
		dirty := "x\x00\xff" + strings.Repeat("ä", 9_000)
		e := event("a@b", 0, users(dirty), func(e *trace.Event) {
			e.Agent.Name, e.CorrelationID = dirty, []byte(dirty)
			e.Payload = []byte("INV\x00ITE sip:" + dirty + "@b SIP/2.0\r\nFrom: <sip:" + dirty + "@b>;tag=" + dirty + "\r\nCall-ID: " + dirty + "\r\nCSeq: 1 " + dirty + "\r\n\r\n")
		})
		write(t, s, e)
		for _, r := range rows(t, s, trace.Query{}) {
			for _, text := range [][]byte{r.CallID, r.TracedUser, r.Method, r.Status, r.FromTag, r.Node, r.CorrelationID, r.FromUser, r.RURIUser} {
				if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 || len(text) > store.MaxText {
					t.Errorf("%d bytes of text: %.40q", len(text), text)
				}
			}
		}
	})
	for _, typ := range []uint8{0, trace.TypeLog, 5, 255} {
		t.Run("keeps what is not SIP, and its type", func(t *testing.T) {
			s := open(t, store.Options{})
			e := event("a@b", 0, func(e *trace.Event) {
				e.Type, e.Payload, e.CorrelationID = typ, []byte("INVITE sip:not-sip SIP/2.0\r\nCall-ID: x\r\n\r\n"), []byte("call-1")
			})
			write(t, s, e)
			wantFound(t, s, trace.Query{CallID: "call-1"}, e)
		})
	}
	for _, a := range []struct{ name, src, dst string }{
		{"IPv6", "[2001:db8::1]:5060", "[::1]:65535"},
		{"mixed", "192.0.2.1:1", "[2001:db8::2]:5061"},
		{"unspecified", "0.0.0.0:0", "[::]:0"},
		{"with a zone", "[fe80::1%eth0]:5060", "[fe80::2%eth0]:5060"},
	} {
		t.Run("keeps addresses: "+a.name, func(t *testing.T) {
			s := open(t, store.Options{})
			e := event("a@b", 0, func(e *trace.Event) {
				e.Src, e.Dst, e.Transport, e.Direction = netip.MustParseAddrPort(a.src), netip.MustParseAddrPort(a.dst), trace.WSS, trace.Out
			})
			write(t, s, e)
			wantFound(t, s, trace.Query{}, e)
		})
	}
	t.Run("keeps an event without addresses, transport and agent", func(t *testing.T) {
		s := open(t, store.Options{})
		e := trace.Event{Time: start(), Type: trace.TypeSIP, Payload: message("a@b", "BYE")}
		e.Identify()
		write(t, s, e)
		wantFound(t, s, trace.Query{}, e)
	})
	t.Run("keeps the id of an agent without a name", func(t *testing.T) {
		s := open(t, store.Options{})
		e := event("a@b", 0, func(e *trace.Event) { e.Agent = trace.Agent{ID: 4294967295} })
		write(t, s, e)
		wantFound(t, s, trace.Query{}, e)
	})
}

// testColumns compares each column of a request's and a reply's row.
func testColumns(t *testing.T, open Open) {
	s := open(t, store.Options{})
	reply := []byte("SIP/2.0 407 Proxy Authentication Required\r\nFrom: <sip:+4930@example.com>;tag=f1\r\nTo: <tel:+4989>;tag=t1\r\n" +
		"Call-ID: a@b\r\nCSeq: 4294967295 INVITE\r\n\r\n")
	request := event("a@b", 0, users("alice"))
	write(t, s, request, event("", 1, payload(reply), func(e *trace.Event) { e.Transport, e.Direction = trace.TLS, trace.Out }))
	got := rows(t, s, trace.Query{})
	if len(got) != 3 {
		t.Fatalf("%d rows, want 3", len(got))
	}
	if r := got[0]; r.ID>>16 != request.Time.UnixMilli() || r.ID == got[1].ID || r.TimeUS() != 123456 {
		t.Errorf("id = %d and %d, time_us = %d", r.ID, got[1].ID, r.TimeUS())
	}
	type texts struct {
		callID, user, method, status, fromIP, toIP, fromTag, toTag, direction, node, transport string
		cseq                                                                                   int64
		fromUser, toUser, ruriUser                                                             string
	}
	want := []texts{
		{"a@b", "", "INVITE", "", "udp:192.0.2.1:5060", "udp:198.51.100.2:5062", "9fxced76sl", "", "in", "edge-1", "udp", 7, "alice", "carol", "bob"},
		{"a@b", "alice", "INVITE", "", "udp:192.0.2.1:5060", "udp:198.51.100.2:5062", "9fxced76sl", "", "in", "edge-1", "udp", 7, "alice", "carol", "bob"},
		{"a@b", "", "INVITE", "407", "tls:192.0.2.1:5060", "tls:198.51.100.2:5062", "f1", "t1", "out", "edge-1", "tls", 4294967295, "+4930", "+4989", ""},
	}
	for i, r := range got {
		row := texts{string(r.CallID), string(r.TracedUser), string(r.Method), string(r.Status), string(r.FromIP), string(r.ToIP),
			string(r.FromTag), string(r.ToTag), r.Direction.String(), string(r.Node), r.Transport.String(), r.CSeq,
			string(r.FromUser), string(r.ToUser), string(r.RURIUser)}
		if row != want[i] {
			t.Errorf("row %d is\n%+v, want\n%+v", i, row, want[i])
		}
	}
}
