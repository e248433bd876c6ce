package sipmsg_test

import (
	"strings"
	"testing"
)

// What senders, and captures that are cut short, really produce.
func TestScan_startLines(t *testing.T) {
	run(t, []torture{
		{"response without reason and its space", response, edits{"start": "SIP/2.0 180"},
			func(w *fields) { w.Flags, w.Reason = "odd-start-line", "" }},
		{"response without reason", response, edits{"start": "SIP/2.0 180 "},
			func(w *fields) { w.Reason = "" }},
		{"response with three spaces for a reason", response, edits{"start": "SIP/2.0 180   "},
			func(w *fields) { w.Flags, w.Reason = "odd-start-line", "" }},
		{"version in lower case", response, edits{"start": "sip/2.0 180 Ringing"}, nil},
		{"two spaces before the status", response, edits{"start": "SIP/2.0  180 Ringing"},
			func(w *fields) { w.Flags = "odd-start-line" }},
		{"status 99", response, edits{"start": "SIP/2.0 99 Low"},
			func(w *fields) { w.Flags, w.Status, w.Reason = "bad-status", "0 99", "Low" }},
		{"status 099", response, edits{"start": "SIP/2.0 099 Low"},
			func(w *fields) { w.Flags, w.Status, w.Reason = "bad-status", "0 099", "Low" }},
		{"status 100", response, edits{"start": "SIP/2.0 100 Trying"},
			func(w *fields) { w.Status, w.Reason = "100 100", "Trying" }},
		{"status 699", response, edits{"start": "SIP/2.0 699 High"},
			func(w *fields) { w.Status, w.Reason = "699 699", "High" }},
		{"status 700", response, edits{"start": "SIP/2.0 700 High"},
			func(w *fields) { w.Flags, w.Status, w.Reason = "bad-status", "0 700", "High" }},
		{"status with letters", response, edits{"start": "SIP/2.0 2oo OK"},
			func(w *fields) { w.Flags, w.Status, w.Reason = "bad-status", "0 2oo", "OK" }},
		{"no status", response, edits{"start": "SIP/2.0"},
			func(w *fields) { w.Flags, w.Status, w.Reason = "odd-start-line bad-status", "0 ", "" }},
		{"tabs for spaces", request, edits{"start": "INVITE\tsip:bob@biloxi.example\tSIP/2.0"},
			func(w *fields) { w.Flags = "odd-start-line" }},
		{"space before the method", request, edits{"start": " INVITE sip:bob@biloxi.example SIP/2.0"},
			func(w *fields) { w.Flags = "odd-start-line" }},
		{"method in lower case", request, edits{"start": "invite sip:bob@biloxi.example SIP/2.0"},
			func(w *fields) { w.Method, w.Flags = "invite", "cseq-mismatch" }},
		{"method that is no token", request, edits{"start": "INV<ITE sip:bob@biloxi.example SIP/2.0"},
			func(w *fields) { w.Method, w.Flags = "INV<ITE", "odd-start-line cseq-mismatch" }},
		{"no version", request, edits{"start": "INVITE sip:bob@biloxi.example"},
			func(w *fields) { w.Flags = "odd-start-line bad-version" }},
		{"version misspelt", request, edits{"start": "INVITE sip:bob@biloxi.example SIPS2.0"},
			func(w *fields) { w.Flags = "odd-start-line bad-version" }},
		{"no URI", request, edits{"start": "INVITE SIP/2.0"},
			func(w *fields) {
				w.Flags = "odd-start-line odd-request-uri"
				w.RequestURI, w.RURIUser, w.RURIHost = "", "", ""
			}},
		{"start line unreadable, fields read", request, edits{"start": "XXXXXXsip:bob@biloxi.exampleSIP/2.0"},
			func(w *fields) {
				w.Flags, w.Method = "not-sip", ""
				w.RequestURI, w.RURIUser, w.RURIHost = "", "", ""
			}},
		{"start line lost, fields read", request, edits{"start": gone},
			func(w *fields) {
				w.Flags, w.Method = "not-sip", ""
				w.RequestURI, w.RURIUser, w.RURIHost = "", "", ""
			}},
		{"line ends before it", request, edits{"before": "\r\n\r\n"}, nil},
		{"NULs before it", request, edits{"before": "\x00\x00\r\n"}, nil},
	})
}

func TestScan_lineEnds(t *testing.T) {
	tests := []struct {
		name, end, flags string
	}{
		{"LF", "\n", "bare-lf"},
		{"CR", "\r", "bare-cr"},
		{"CR CR LF", "\r\r\n", "bare-cr"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := request.want
			want.Flags = tt.flags
			head, body, _ := strings.Cut(request.with(t, nil), "\r\n\r\n")
			compare(t, scan(strings.ReplaceAll(head+"\r\n\r\n", "\r\n", tt.end)+body), want)
		})
	}
	run(t, []torture{
		{"one line with LF alone", request, edits{"To": "To: <sip:robert@biloxi.example>\n"},
			func(w *fields) { w.Flags = "bare-lf" }},
		{"one line with CR alone", request, edits{"To": "To: <sip:robert@biloxi.example>\r"},
			func(w *fields) { w.Flags = "bare-cr" }},
		{"empty line with LF alone", request, edits{"end": "\n"},
			func(w *fields) { w.Flags = "bare-lf" }},
		{"cut before the empty line", request, edits{"Content-Length": "Content-Length: 0", "end": gone, "body": gone},
			func(w *fields) { w.Flags, w.ContentLength, w.Body, w.SDP = "no-end", "0", "", false }},
		{"cut within the empty line", request, edits{"end": "\r", "body": gone, "Content-Length": gone},
			func(w *fields) { w.Flags, w.ContentLength, w.Body, w.SDP = "no-end", "", "", false }},
		{"cut within a word", response, edits{"CSeq": gone, "Content-Length": gone, "end": gone, "body": "CSeq: 42 INV"},
			func(w *fields) { w.Flags, w.CSeqMethod, w.ContentLength = "no-end", "INV", "" }},
		{"line of spaces is no empty line", request, edits{"Contact": "Contact: <sip:alice@pc1.atlanta.example>\r\n   \r\n"},
			func(w *fields) { w.Flags = "folded" }},
		{"first field behind a space", request, edits{"Via": " Via: SIP/2.0/UDP pc1.atlanta.example:5060;branch=z9hG4bKbase"}, nil},
	})
}

func TestScan_headerNames(t *testing.T) {
	all := edits{
		"Via":            "v: SIP/2.0/UDP pc1.atlanta.example:5060;branch=z9hG4bKbase",
		"From":           "f: Alice <sip:alice@atlanta.example>;tag=from1",
		"To":             "t: <sip:robert@biloxi.example>",
		"Call-ID":        "i: base@pc1.atlanta.example",
		"Content-Type":   "c: application/sdp",
		"Content-Length": "l: 5",
	}
	upper := edits{}
	for name, line := range all {
		upper[name] = strings.ToUpper(line[:1]) + line[1:]
	}
	run(t, []torture{
		{"compact", request, all, nil},
		{"compact, in capitals", request, upper, nil},
		{"in lower case", request, edits{"Call-ID": "call-id: base@pc1.atlanta.example", "CSeq": "cseq: 42 INVITE"}, nil},
		{"in capitals", request, edits{"Content-Length": "CONTENT-LENGTH: 5", "Via": "VIA: SIP/2.0/UDP pc1.atlanta.example:5060;branch=z9hG4bKbase"}, nil},
		{"space before the colon", request, edits{"Content-Length": "Content-Length : 5", "From": "From\t: Alice <sip:alice@atlanta.example>;tag=from1"}, nil},
		{"no space after the colon", request, edits{"Call-ID": "Call-ID:base@pc1.atlanta.example", "CSeq": "CSeq:42 INVITE"}, nil},
		{"much space after the colon", request, edits{"Call-ID": "Call-ID: \t  base@pc1.atlanta.example  "}, nil},
		{"no colon", request, edits{"Max-Forwards": "Max-Forwards 70"},
			func(w *fields) { w.Flags = "no-colon" }},
		{"no colon in a Call-ID", request, edits{"Call-ID": "Call-ID base@pc1.atlanta.example"},
			func(w *fields) { w.Flags, w.CallID = "no-colon missing-call-id", "" }},
		{"names that only look alike", request, edits{"Max-Forwards": "Vi: x\r\nFron: x\r\nCall-IT: x\r\nTo-: x\r\nContent-Typo: x\r\nContent_Length: x\r\n: x"}, nil},
		{"bad values of fields that are not read", request, edits{"Contact": "Contact: <<>\r\nRoute: ,,;\r\nExpires: never", "Max-Forwards": "Max-Forwards: many"}, nil},
	})
}

func TestScan_repeatedHeaders(t *testing.T) {
	run(t, []torture{
		{"the first Call-ID counts", request, edits{"Contact": "Call-ID: other"},
			func(w *fields) { w.Flags = "duplicate" }},
		{"also in compact form", request, edits{"Contact": "i: other"},
			func(w *fields) { w.Flags = "duplicate" }},
		{"the first From and To count", request, edits{"Contact": "From: <sip:x@y>;tag=z\r\nTo: <sip:x@y>;tag=z"},
			func(w *fields) { w.Flags = "duplicate" }},
		{"the first CSeq counts", request, edits{"Contact": "CSeq: 1 BYE"},
			func(w *fields) { w.Flags = "duplicate" }},
		{"the first Content-Length counts", request, edits{"Contact": "l: 0"},
			func(w *fields) {
				w.Flags, w.ContentLength, w.Body, w.SDP, w.Rest = "duplicate", "0", "", false, "v=0\r\n"
			}},
		{"the first Via counts", request, edits{"Max-Forwards": "v: SIP/2.0/TCP other;branch=z9hG4bKother"}, nil},
		{"an empty one does not count", request, edits{"Via": "Via:\r\nCall-ID:\r\nVia: SIP/2.0/UDP pc1.atlanta.example:5060;branch=z9hG4bKbase"}, nil},
	})
}

func TestScan_missingHeaders(t *testing.T) {
	run(t, []torture{
		{"Call-ID", request, edits{"Call-ID": gone}, func(w *fields) { w.Flags, w.CallID = "missing-call-id", "" }},
		{"CSeq", request, edits{"CSeq": gone}, func(w *fields) { w.Flags, w.CSeq, w.CSeqMethod = "missing-cseq", "", "" }},
		{"From", request, edits{"From": gone}, func(w *fields) {
			w.Flags, w.FromURI, w.FromUser, w.FromHost, w.FromTag = "missing-from", "", "", "", ""
		}},
		{"To", request, edits{"To": gone}, func(w *fields) {
			w.Flags, w.ToURI, w.ToUser, w.ToHost = "missing-to", "", "", ""
		}},
		{"Via", request, edits{"Via": gone}, func(w *fields) {
			w.Flags, w.ViaTransport, w.ViaHost, w.ViaBranch = "missing-via", "", "", ""
		}},
		{"an empty Call-ID", request, edits{"Call-ID": "Call-ID:  "}, func(w *fields) { w.Flags, w.CallID = "missing-call-id", "" }},
		{"From tag", request, edits{"From": "From: Alice <sip:alice@atlanta.example>"}, func(w *fields) { w.FromTag = "" }},
	})
}

func TestScan_folding(t *testing.T) {
	only := func(w *fields) { w.Flags = "folded" }
	run(t, []torture{
		{"before the value", request, edits{"Call-ID": "Call-ID:\r\n\tbase@pc1.atlanta.example"}, only},
		{"before each parameter", request, edits{"Via": "Via: SIP/2.0/UDP pc1.atlanta.example:5060\r\n ;rport\r\n ;branch\r\n =\r\n z9hG4bKbase"}, only},
		{"between the words of CSeq", request, edits{"CSeq": "CSeq: 42\r\n \r\n\tINVITE"}, only},
		{"between name and bracket", request, edits{"From": "From: Alice\r\n <sip:alice@atlanta.example>\r\n ;tag=from1"}, only},
		{"with LF alone", request, edits{"Call-ID": "Call-ID:\n base@pc1.atlanta.example"},
			func(w *fields) { w.Flags = "folded bare-lf" }},
		{"within a Call-ID", request, edits{"Call-ID": "Call-ID: base@pc1\r\n .atlanta.example"},
			func(w *fields) { w.Flags, w.CallID = "folded bad-call-id", "" }},
		{"within a user", request, edits{"From": "From: <sip:ali\r\n ce@atlanta.example>;tag=from1"},
			func(w *fields) {
				w.Flags, w.FromUser, w.FromURI = "folded odd-address", "", "sip:ali\r\n ce@atlanta.example"
			}},
		{"within a long value", request, edits{"Max-Forwards": "User-Agent: one\r\n  two"},
			func(w *fields) { w.Flags, w.UserAgent = "folded", "one\r\n  two" }},
	})
}

func TestScan_keepAlivesAndStrangers(t *testing.T) {
	tests := []struct{ name, in, flags string }{
		{"nothing", "", "keep-alive"},
		{"CRLF", "\r\n", "keep-alive"},
		{"CRLF twice", "\r\n\r\n", "keep-alive"},
		{"NUL", "\x00", "keep-alive"},
		{"four NULs", "\x00\x00\x00\x00", "keep-alive"},
		{"prose", "hello there\r\n\r\n", "not-sip no-colon"},
		{"HTTP request", "GET /sip:a HTTP/1.1\r\nHost: a\r\n\r\n", "not-sip"},
		{"HTTP response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", "not-sip no-colon"},
		{"RTSP", "OPTIONS rtsp://a RTSP/1.0\r\nCSeq: 1\r\n\r\n", "not-sip bad-cseq"},
		{"STUN", "\x00\x01\x00\x00\x21\x12\xa4\x42\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "not-sip no-end no-colon"},
		{"SIP inside of something", "HEP3\x00\x10INVITE sip:a@b SIP/2.0\r\n\r\n", "not-sip"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := scan(tt.in)
			if got.Flags != tt.flags {
				t.Errorf("flags: got %q, want %q", got.Flags, tt.flags)
			}
			if got.Method != "" || got.Status != "" || got.Rest != "" {
				t.Errorf("got %+v, want no method, no status, nothing left", got)
			}
		})
	}
}
