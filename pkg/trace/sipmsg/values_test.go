package sipmsg_test

import (
	"strings"
	"testing"
)

func TestScan_addresses(t *testing.T) {
	from := func(flags, uri, user, host, tag string) func(*fields) {
		return func(w *fields) {
			w.Flags, w.FromURI, w.FromUser, w.FromHost, w.FromTag = flags, uri, user, host, tag
		}
	}
	tests := []struct {
		name, from string
		want       func(*fields)
	}{
		{"TAG in capitals", `<sip:a@b>;TAG=x`, from("", "sip:a@b", "a", "b", "x")},
		{"space round the tag's equals sign", `<sip:a@b> ; tag = x`, from("", "sip:a@b", "a", "b", "x")},
		{"tag behind other parameters", `<sip:a@b>;x;y="q;tag=no\"";tag=x;z`, from("", "sip:a@b", "a", "b", "x")},
		{"tag twice", `<sip:a@b>;tag=x;tag=y`, from("", "sip:a@b", "a", "b", "x")},
		{"tag empty", `<sip:a@b>;tag=`, from("", "sip:a@b", "a", "b", "")},
		{"tag without a value", `<sip:a@b>;tag`, from("", "sip:a@b", "a", "b", "")},
		{"tag with odd letters", `<sip:a@b>;tag=x@y=:<z>`, from("", "sip:a@b", "a", "b", "x@y=:<z>")},
		{"tag in the URI is none", `<sip:a@b;tag=no>`, from("", "sip:a@b;tag=no", "a", "b", "")},
		{"tag in the user is none", `<sip:a;tag=no@b>;tag=x`, from("", "sip:a;tag=no@b", "a;tag=no", "b", "x")},
		{"empty parameters", `<sip:a@b>;;tag=x`, from("odd-address", "sip:a@b", "a", "b", "x")},
		{"text behind the bracket", `<sip:a@b> x;tag=x`, from("odd-address", "sip:a@b", "a", "b", "x")},
		{"quoted name with a bracket", `"A <sip:no@no>" <sip:a@b>;tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"quoted name with a tag", `"A;tag=no" <sip:a@b>;tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"quoted name with a quotation mark", `"A \"<\" \\" <sip:a@b>;tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"name of UTF-8 in quotes", `"Žluťoučký kůň" <sip:a@b>;tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"quote never closed", `"A <sip:a@b>;tag=x`, from("unbalanced-quote", "sip:a@b", "a", "b", "x")},
		{"quote in a parameter never closed", `<sip:a@b>;x="y;tag=x`, from("unbalanced-quote", "sip:a@b", "a", "b", "x")},
		{"bracket never closed", `A <sip:a@b;tag=x`, from("odd-address", "sip:a@b", "a", "b", "x")},
		{"no space before the bracket", `A<sip:a@b>;tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"no bracket", `sip:a@b;user=phone;tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"no bracket, but one in a parameter", `sip:a@b;x="<sip:no@no>";tag=x`, from("", "sip:a@b", "a", "b", "x")},
		{"two addresses", `sip:a@b, sip:c@d`, from("odd-address", "sip:a@b,", "a", "b", "")},
		{"space in the brackets", `< sip:a@b >;tag=x`, from("odd-address", "sip:a@b", "a", "b", "x")},
		{"space in the user", `<sip:a c@b>;tag=x`, from("odd-address", "sip:a c@b", "a c", "b", "x")},
		{"escaped user stays escaped", `<sip:a%40c%20@b>;tag=x`, from("", "sip:a%40c%20@b", "a%40c%20", "b", "x")},
		{"user with parameters", `<sip:+1555;phone-context=+1;x=y@b;user=phone>;tag=x`,
			from("", "sip:+1555;phone-context=+1;x=y@b;user=phone", "+1555;phone-context=+1;x=y", "b", "x")},
		{"user with a question mark", `<sip:a?c@b?x=y>;tag=x`, from("", "sip:a?c@b?x=y", "a?c", "b", "x")},
		{"password", `<sip:a:secret@b>;tag=x`, from("", "sip:a:secret@b", "a", "b", "x")},
		{"no user", `<sip:b:5070>;tag=x`, from("", "sip:b:5070", "", "b", "x")},
		{"empty user", `<sip:@b>;tag=x`, from("", "sip:@b", "", "b", "x")},
		{"no host", `<sip:a@>;tag=x`, from("odd-address", "sip:a@", "a", "", "x")},
		{"two @", `<sip:a@c@b;x=d@e>;tag=x`, from("odd-address", "sip:a@c@b;x=d@e", "a@c", "b", "x")},
		{"sips", `<sips:a@b>;tag=x`, from("", "sips:a@b", "a", "b", "x")},
		{"scheme in capitals", `<SIP:a@b>;tag=x`, from("", "SIP:a@b", "a", "b", "x")},
		{"tel", `<tel:+1-201-555-0123;phone-context=x@y>;tag=x`,
			from("", "tel:+1-201-555-0123;phone-context=x@y", "+1-201-555-0123", "", "x")},
		{"tel without brackets", `tel:112;tag=x`, from("", "tel:112", "112", "", "x")},
		{"URN", `<urn:service:sos.police>;tag=x`, from("", "urn:service:sos.police", "", "", "x")},
		{"URL", `<https://b:443/a>;tag=x`, from("", "https://b:443/a", "", "b", "x")},
		{"instant messaging", `<im:a@b>;tag=x`, from("", "im:a@b", "a", "b", "x")},
		{"no scheme", `<a@b>;tag=x`, from("odd-address", "a@b", "a", "b", "x")},
		{"IPv6", `<sip:a@[2001:db8::9]:5060>;tag=x`, from("", "sip:a@[2001:db8::9]:5060", "a", "[2001:db8::9]", "x")},
		{"IPv6 without user", `<sip:[2001:db8::9];transport=tcp>;tag=x`,
			from("", "sip:[2001:db8::9];transport=tcp", "", "[2001:db8::9]", "x")},
		{"IPv6 with a zone", `<sip:a@[fe80::1%25eth0]>;tag=x`, from("", "sip:a@[fe80::1%25eth0]", "a", "[fe80::1%25eth0]", "x")},
		{"IPv6 never closed", `<sip:a@[2001>;tag=x`, from("", "sip:a@[2001", "a", "[2001", "x")},
		{"anonymous", `"Anonymous" <sip:anonymous@anonymous.invalid>;tag=x`,
			from("", "sip:anonymous@anonymous.invalid", "anonymous", "anonymous.invalid", "x")},
		{"empty brackets", `<>;tag=x`, from("odd-address", "", "", "", "x")},
		{"only a parameter", `;tag=x`, from("odd-address", "", "", "", "x")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := request.want
			tt.want(&want)
			compare(t, scan(request.with(t, edits{"From": "From: " + tt.from})), want)
		})
	}
}

func TestScan_requestURIs(t *testing.T) {
	tests := []struct{ name, uri, flags, want, user, host string }{
		{"tel", "tel:+12015550123;phone-context=x", "", "tel:+12015550123;phone-context=x", "+12015550123", ""},
		{"IPv6", "sip:a@[2001:db8::10]:5070;lr", "", "sip:a@[2001:db8::10]:5070;lr", "a", "[2001:db8::10]"},
		{"URN", "urn:service:sos", "", "urn:service:sos", "", ""},
		{"user with semicolons", "sip:a;p=b%40c@d", "", "sip:a;p=b%40c@d", "a;p=b%40c", "d"},
		{"asterisk", "*", "odd-request-uri", "*", "", "*"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := request.want
			want.Flags, want.RequestURI, want.RURIUser, want.RURIHost = tt.flags, tt.want, tt.user, tt.host
			compare(t, scan(request.with(t, edits{"start": "INVITE " + tt.uri + " SIP/2.0"})), want)
		})
	}
}

func TestScan_via(t *testing.T) {
	tests := []struct{ name, via, flags, transport, host, branch string }{
		{"several in one field", "SIP/2.0/TCP a:5060;branch=x , SIP/2.0/UDP b;branch=y", "", "TCP", "a", "x"},
		{"no branch in the first of several", "SIP/2.0/TCP a, SIP/2.0/UDP b;branch=y", "", "TCP", "a", ""},
		{"BRANCH in capitals", "SIP/2.0/UDP a;BRANCH=x", "", "UDP", "a", "x"},
		{"space everywhere", "SIP / 2.0\t/ TLS  a : 5061 ; branch = x ", "", "TLS", "a", "x"},
		{"IPv6", "SIP/2.0/UDP [2001:db8::9]:5060;branch=x", "", "UDP", "[2001:db8::9]", "x"},
		{"branch in a quoted parameter is none", `SIP/2.0/UDP a;x="branch=no;branch=no,";branch=x`, "", "UDP", "a", "x"},
		{"WebSocket", "SIP/2.0/WSS df7jal23ls0d.invalid;branch=x", "", "WSS", "df7jal23ls0d.invalid", "x"},
		{"in lower case", "sip/2.0/udp a;branch=x", "", "udp", "a", "x"},
		{"other version", "SIP/3.0/UDP a;branch=x", "odd-via", "UDP", "a", "x"},
		{"comment", "SIP/2.0/UDP a (my, phone);branch=x", "odd-via", "UDP", "a", ""},
		{"comment without a comma", "SIP/2.0/UDP a (my phone);branch=x", "odd-via", "UDP", "a", "x"},
		{"no transport", "SIP/2.0 a;branch=x", "odd-via", "", "a", "x"},
		{"no host", "SIP/2.0/UDP;branch=x", "odd-via", "UDP", "", "x"},
		{"nothing but a branch", ";branch=x", "odd-via", "", "", "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := request.want
			want.Flags, want.ViaTransport, want.ViaHost, want.ViaBranch = tt.flags, tt.transport, tt.host, tt.branch
			compare(t, scan(request.with(t, edits{"Via": "Via: " + tt.via})), want)
		})
	}
}

func TestScan_cseq(t *testing.T) {
	tests := []struct{ name, cseq, flags, number, method string }{
		{"two spaces", "42  INVITE", "", "42", "INVITE"},
		{"tab", "42\tINVITE", "", "42", "INVITE"},
		{"leading noughts", "0042 INVITE", "", "42", "INVITE"},
		{"nought", "0 INVITE", "", "0", "INVITE"},
		{"largest", "2147483647 INVITE", "", "2147483647", "INVITE"},
		{"one above the largest", "2147483648 INVITE", "bad-cseq", "2147483648", "INVITE"},
		{"largest of 32 bits", "4294967295 INVITE", "bad-cseq", "4294967295", "INVITE"},
		{"above 32 bits", "4294967296 INVITE", "bad-cseq", "", "INVITE"},
		{"above 64 bits", "18446744073709551658 INVITE", "bad-cseq", "", "INVITE"},
		{"negative", "-42 INVITE", "bad-cseq", "", "INVITE"},
		{"no number", "INVITE", "bad-cseq", "", "INVITE"},
		{"no method", "42", "bad-cseq", "42", ""},
		{"no space", "42INVITE", "bad-cseq", "42", "INVITE"},
		{"more words", "42 INVITE 43", "bad-cseq", "42", "INVITE"},
		{"other method", "42 BYE", "cseq-mismatch", "42", "BYE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := request.want
			want.Flags, want.CSeq, want.CSeqMethod = tt.flags, tt.number, tt.method
			compare(t, scan(request.with(t, edits{"CSeq": "CSeq: " + tt.cseq})), want)
		})
	}
}

func TestScan_bodies(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 8192)
	run(t, []torture{
		{"shorter than its length", request, edits{"Content-Length": "Content-Length: 500"},
			func(w *fields) { w.Flags, w.ContentLength = "short-body", "500" }},
		{"longer than its length", request, edits{"Content-Length": "Content-Length: 3"},
			func(w *fields) { w.ContentLength, w.Body, w.Rest = "3", "v=0", "\r\n" }},
		{"without a length", request, edits{"Content-Length": gone, "after": "more"},
			func(w *fields) { w.ContentLength, w.Body = "", "v=0\r\nmore" }},
		{"length empty", request, edits{"Content-Length": "Content-Length:", "after": "more"},
			func(w *fields) { w.Flags, w.ContentLength, w.Body = "bad-length", "", "v=0\r\nmore" }},
		{"length negative", request, edits{"Content-Length": "Content-Length: -5"},
			func(w *fields) { w.Flags, w.ContentLength = "bad-length", "" }},
		{"length in hexadecimal", request, edits{"Content-Length": "Content-Length: 0x5"},
			func(w *fields) { w.Flags, w.ContentLength = "bad-length", "" }},
		{"length above 64 bits", request, edits{"Content-Length": "Content-Length: 18446744073709551621"},
			func(w *fields) { w.Flags, w.ContentLength = "bad-length", "" }},
		{"length of 31 bits", request, edits{"Content-Length": "Content-Length: 2147483647"},
			func(w *fields) { w.Flags, w.ContentLength = "short-body", "2147483647" }},
		{"NULs in it", request, edits{"Content-Type": "Content-Type: application/octet-stream", "body": "\x00\n\r\x00\xff"},
			func(w *fields) { w.ContentType, w.Body, w.SDP = "application/octet-stream", "\x00\n\r\x00\xff", false }},
		{"128 KiB", request, edits{"Content-Length": "Content-Length: 131072", "body": big, "after": "\r\n"},
			func(w *fields) { w.ContentLength, w.Body, w.Rest = "131072", big, "\r\n" }},
		{"SDP with parameters", request, edits{"Content-Type": "Content-Type: Application/SDP ; charset=utf-8"},
			func(w *fields) { w.ContentType = "Application/SDP ; charset=utf-8" }},
		{"SDP with space round the slash", request, edits{"Content-Type": "Content-Type: application / sdp"},
			func(w *fields) { w.ContentType = "application / sdp" }},
		{"SDP announced, but no body", request, edits{"Content-Length": "Content-Length: 0", "body": gone},
			func(w *fields) { w.ContentLength, w.Body, w.SDP = "0", "", false }},
		{"type that begins like SDP", request, edits{"Content-Type": "Content-Type: application/sdpx"},
			func(w *fields) { w.ContentType, w.SDP = "application/sdpx", false }},
		{"type without a subtype", request, edits{"Content-Type": "Content-Type: sdp"},
			func(w *fields) { w.ContentType, w.SDP = "sdp", false }},
	})
}

func TestScan_partsOfABody(t *testing.T) {
	tests := []struct {
		name, part string
		want       bool
	}{
		{"SDP", "Content-Type: application/sdp\r\n\r\nv=0\r\n", true},
		{"SDP after another", "Content-Type: text/plain\r\n\r\nhello\r\n--x\r\nc:application/sdp\r\n\r\nv=0\r\n", true},
		{"no SDP", "Content-Type: application/isup\r\n\r\n\x01\x00application/sdp\r\n", false},
		{"SDP only named", "Content-Type: text/plain\r\nSubject: application/sdp\r\n\r\nhello", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			msg := request.with(t, edits{"Content-Type": "Content-Type: multipart/mixed;boundary=x", "Content-Length": gone, "body": "--x\r\n" + tt.part + "\r\n--x--"})
			if got := scan(msg).SDP; got != tt.want {
				t.Errorf("HasSDP: got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestScan_userAgents(t *testing.T) {
	both := "User-Agent: agent\r\nServer: server"
	run(t, []torture{
		{"of a request", request, edits{"Max-Forwards": both}, func(w *fields) { w.UserAgent = "agent" }},
		{"of a response", response, edits{"CSeq": "CSeq: 42 INVITE\r\n" + both}, func(w *fields) { w.UserAgent = "server" }},
		{"request with Server alone", request, edits{"Max-Forwards": "Server: server"}, func(w *fields) { w.UserAgent = "server" }},
		{"response with User-Agent alone", response, edits{"CSeq": "CSeq: 42 INVITE\r\nuser-agent: agent"}, func(w *fields) { w.UserAgent = "agent" }},
	})
}

func TestScan_callIDs(t *testing.T) {
	run(t, []torture{
		{"with a space", request, edits{"Call-ID": "Call-ID: a b"}, func(w *fields) { w.Flags, w.CallID = "bad-call-id", "a b" }},
		{"with a tab", request, edits{"Call-ID": "Call-ID: a\tb"}, func(w *fields) { w.Flags, w.CallID = "bad-call-id", "a\tb" }},
		{"with all sorts of things", request, edits{"Call-ID": `Call-ID: a'b\c"<>:é`}, func(w *fields) { w.CallID = `a'b\c"<>:é` }},
	})
}
