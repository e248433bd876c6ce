package sipmsg_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// fields is what a Message says, as text.
type fields struct {
	Flags                                       string
	Method, Status, Reason                      string
	RequestURI, RURIUser, RURIHost              string
	FromURI, FromUser, FromHost, FromTag        string
	ToURI, ToUser, ToHost, ToTag                string
	CallID, CSeq, CSeqMethod                    string
	ViaTransport, ViaHost, ViaBranch            string
	UserAgent, ContentType, ContentLength, Body string
	SDP                                         bool
	Rest                                        string // what follows the message
}

// scan reads all fields of in.
func scan(in string) fields {
	b := []byte(in)
	var m sipmsg.Message
	sipmsg.Scan(&m, b)
	of := func(s sipmsg.Span) string { return string(s.Of(b)) }
	f := fields{
		Flags:  m.Flags.String(),
		Method: of(m.Method), Reason: of(m.Reason),
		RequestURI: of(m.RequestURI), RURIUser: of(m.RURIUser), RURIHost: of(m.RURIHost),
		FromURI: of(m.FromURI), FromUser: of(m.FromUser), FromHost: of(m.FromHost), FromTag: of(m.FromTag),
		ToURI: of(m.ToURI), ToUser: of(m.ToUser), ToHost: of(m.ToHost), ToTag: of(m.ToTag),
		CallID: of(m.CallID), CSeqMethod: of(m.CSeqMethod),
		ViaTransport: of(m.ViaTransport), ViaHost: of(m.ViaHost), ViaBranch: of(m.ViaBranch),
		UserAgent: of(m.UserAgent), ContentType: of(m.ContentType), Body: of(m.Body),
		SDP: m.HasSDP(), Rest: string(b[m.End:]),
	}
	if m.Response {
		f.Status = fmt.Sprintf("%d %s", m.Status, of(m.StatusText))
	}
	if m.HasCSeqNumber {
		f.CSeq = fmt.Sprint(m.CSeqNumber)
	}
	if m.ContentLength >= 0 {
		f.ContentLength = fmt.Sprint(m.ContentLength)
	}
	return f
}

// compare tells each field in which got is not want.
func compare(t *testing.T, got, want fields) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if !g.Field(i).Equal(w.Field(i)) {
			t.Errorf("%s: got %#v, want %#v", g.Type().Field(i).Name, g.Field(i), w.Field(i))
		}
	}
}

// edits replace lines of a plain message, by the line's name: "start", the name of a
// header field, "end" (the empty line), "body"; "before" and "after" go round it.
type edits map[string]string

// gone takes a line out.
const gone = "(gone)"

// A plain message has no torture in it.
type plain struct {
	lines []string // name, line, name, line …
	want  fields
}

var request = plain{
	lines: []string{
		"before", "",
		"start", "INVITE sip:bob@biloxi.example SIP/2.0\r\n",
		"Via", "Via: SIP/2.0/UDP pc1.atlanta.example:5060;branch=z9hG4bKbase\r\n",
		"Max-Forwards", "Max-Forwards: 70\r\n",
		"From", "From: Alice <sip:alice@atlanta.example>;tag=from1\r\n",
		"To", "To: <sip:robert@biloxi.example>\r\n",
		"Call-ID", "Call-ID: base@pc1.atlanta.example\r\n",
		"CSeq", "CSeq: 42 INVITE\r\n",
		"Contact", "Contact: <sip:alice@pc1.atlanta.example>\r\n",
		"Content-Type", "Content-Type: application/sdp\r\n",
		"Content-Length", "Content-Length: 5\r\n",
		"end", "\r\n",
		"body", "v=0\r\n",
		"after", "",
	},
	want: fields{
		Method:     "INVITE",
		RequestURI: "sip:bob@biloxi.example", RURIUser: "bob", RURIHost: "biloxi.example",
		FromURI: "sip:alice@atlanta.example", FromUser: "alice", FromHost: "atlanta.example", FromTag: "from1",
		ToURI: "sip:robert@biloxi.example", ToUser: "robert", ToHost: "biloxi.example",
		CallID: "base@pc1.atlanta.example", CSeq: "42", CSeqMethod: "INVITE",
		ViaTransport: "UDP", ViaHost: "pc1.atlanta.example", ViaBranch: "z9hG4bKbase",
		ContentType: "application/sdp", ContentLength: "5", Body: "v=0\r\n", SDP: true,
	},
}

var response = plain{
	lines: []string{
		"before", "",
		"start", "SIP/2.0 180 Ringing\r\n",
		"Via", "Via: SIP/2.0/UDP pc1.atlanta.example:5060;branch=z9hG4bKbase\r\n",
		"From", "From: Alice <sip:alice@atlanta.example>;tag=from1\r\n",
		"To", "To: <sip:robert@biloxi.example>;tag=to1\r\n",
		"Call-ID", "Call-ID: base@pc1.atlanta.example\r\n",
		"CSeq", "CSeq: 42 INVITE\r\n",
		"Content-Length", "Content-Length: 0\r\n",
		"end", "\r\n",
		"body", "",
		"after", "",
	},
	want: fields{
		Status: "180 180", Reason: "Ringing",
		FromURI: "sip:alice@atlanta.example", FromUser: "alice", FromHost: "atlanta.example", FromTag: "from1",
		ToURI: "sip:robert@biloxi.example", ToUser: "robert", ToHost: "biloxi.example", ToTag: "to1",
		CallID: "base@pc1.atlanta.example", CSeq: "42", CSeqMethod: "INVITE",
		ViaTransport: "UDP", ViaHost: "pc1.atlanta.example", ViaBranch: "z9hG4bKbase",
		ContentLength: "0",
	},
}

// with returns the message with the edits made. An edit without a line end gets one.
func (p plain) with(t *testing.T, e edits) string {
	t.Helper()
	var s strings.Builder
	used := 0
	for i := 0; i < len(p.lines); i += 2 {
		name, line := p.lines[i], p.lines[i+1]
		to, ok := e[name]
		switch {
		case !ok:
			s.WriteString(line)
			continue
		case to != gone:
			s.WriteString(to)
			if strings.HasSuffix(line, "\r\n") && name != "body" && !strings.ContainsAny(to[max(0, len(to)-1):], "\r\n") {
				s.WriteString("\r\n")
			}
		}
		used++
	}
	if used != len(e) {
		t.Fatalf("%d of %d edits used: %v", used, len(e), e)
	}
	return s.String()
}

// A torture is a message that is not plain, and how its fields differ.
type torture struct {
	name string
	of   plain
	edits
	want func(w *fields)
}

func run(t *testing.T, tests []torture) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.of.want
			if tt.want != nil {
				tt.want(&want)
			}
			compare(t, scan(tt.of.with(t, tt.edits)), want)
		})
	}
}

func TestScan_readsPlainMessages(t *testing.T) {
	run(t, []torture{
		{name: "request", of: request},
		{name: "response", of: response},
	})
}

func TestScan_readsEverydayMessages(t *testing.T) {
	call := fields{
		Method:     "INVITE",
		RequestURI: "sip:+4930123456@sbc.example.com", RURIUser: "+4930123456", RURIHost: "sbc.example.com",
		FromURI: "sip:alice@example.com", FromUser: "alice", FromHost: "example.com", FromTag: "8f3cd1aa",
		ToURI: "sip:+4930123456@sbc.example.com", ToUser: "+4930123456", ToHost: "sbc.example.com",
		CallID: "9a31f0c2-77be-4d0c-8f39-5b1b1e7a2c10@10.4.0.17", CSeq: "20417", CSeqMethod: "INVITE",
		ViaTransport: "UDP", ViaHost: "192.0.2.44", ViaBranch: "z9hG4bK-524287-1---a7c1b3f2d9e84c55",
		ContentType: "application/sdp", ContentLength: "289", Body: sdp, SDP: true,
	}
	tests := []struct {
		name, in string
		want     func() fields
	}{
		{"INVITE", invite, func() fields {
			w := call
			w.RequestURI += ":5060;transport=udp"
			w.UserAgent = "Example PBX 7.4.1"
			return w
		}},
		{"200", ok, func() fields {
			w := call
			w.Method, w.RequestURI, w.RURIUser, w.RURIHost = "", "", "", ""
			w.Status, w.Reason, w.ToTag, w.UserAgent = "200 200", "OK", "as6b1f0e77", "Example Gateway 2.0"
			return w
		}},
		{"compact", compact, func() fields { return call }},
		{"folded", folded, func() fields {
			w := call
			w.Flags, w.UserAgent = "folded", "Example PBX\r\n 7.4.1"
			return w
		}},
		{"ACK", ack, func() fields {
			w := call
			w.Method, w.CSeqMethod, w.ToTag, w.ViaBranch = "ACK", "ACK", "as6b1f0e77", "z9hG4bK-524287-1---b1"
			w.RequestURI, w.RURIHost = "sip:+4930123456@198.51.100.9:5060", "198.51.100.9"
			w.ContentType, w.ContentLength, w.Body, w.SDP = "", "0", "", false
			return w
		}},
		{"REGISTER", register, func() fields {
			return fields{
				Method: "REGISTER", RequestURI: "sip:example.com", RURIHost: "example.com",
				FromURI: "sip:alice@example.com", FromUser: "alice", FromHost: "example.com", FromTag: "c4d2",
				ToURI: "sip:alice@example.com", ToUser: "alice", ToHost: "example.com",
				CallID: "ODk1NzQ3NmE4ZmQ0YjU2NzI0ZDE", CSeq: "1021", CSeqMethod: "REGISTER",
				ViaTransport: "TCP", ViaHost: "10.4.0.17", ViaBranch: "z9hG4bK-d8754z-1f8a2b",
				UserAgent: "Example Phone 3.1", ContentLength: "0",
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { compare(t, scan(tt.in), tt.want()) })
	}
}

func TestScan_allocatesNothing(t *testing.T) {
	for _, in := range []string{invite, ok, register, ack, compact, folded, "\r\n\r\n", "no SIP"} {
		b := []byte(in)
		var m sipmsg.Message
		n := 0
		allocs := testing.AllocsPerRun(100, func() {
			sipmsg.Scan(&m, b)
			v, _ := m.Header(b, "P-Asserted-Identity")
			w, _ := m.Header(b, "m")
			n += len(v) + len(w) + len(m.EventMethod(b))
			for name, value := range sipmsg.Headers(b) {
				n += len(name) + len(value)
			}
			if sipmsg.IsSIP(b) {
				n++
			}
		})
		if allocs != 0 {
			t.Errorf("%.20q…: got %v allocations, want 0", in, allocs)
		}
	}
}

func TestScan_overwritesTheMessage(t *testing.T) {
	var m, fresh sipmsg.Message
	sipmsg.Scan(&m, []byte(folded))
	sipmsg.Scan(&m, []byte(ack))
	sipmsg.Scan(&fresh, []byte(ack))
	if m != fresh {
		t.Errorf("got %+v, want %+v", m, fresh)
	}
}
