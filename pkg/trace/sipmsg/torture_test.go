package sipmsg_test

import (
	"fmt"
	"strings"
	"testing"
)

// The tests below go through RFC 4475, section by section. The messages are
// made for the purpose: each has the torture of its section and nothing else.

var long = strings.Repeat("long", 60)

// binary is a body of one part, with line ends and NULs where no text has them.
const binary = "--7a9c\r\nContent-Type: application/octet-stream\r\n\r\n0\x82\x00\r\n\r\n\n\xff\r\r\n--7a9c--\r\n\r\n\x00\x00"

func TestScan_RFC4475_validMessages(t *testing.T) {
	run(t, []torture{
		{"3.1.1.1 a short tortuous INVITE", request, edits{
			"start":          "INVITE sip:bob@biloxi.example;what=ever SIP/2.0",
			"To":             "TO :\r\n sip:robert@biloxi.example ;  tag\t= 77n",
			"From":           "from   : \"A \\\\\\\"\"    <sip:alice@atlanta.example>\r\n  ;\r\n  tag = 12",
			"Max-Forwards":   "MaX-fOrWaRdS: 0070",
			"Content-Length": "Content-Length   : 5",
			"CSeq":           "cseq: 0042\r\n  INVITE",
			"Via":            "Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.7;branch=notmagic\r\ns :\r\nNew: one\r\n two\r\nOdd: ;;,,;;,;",
			"Contact":        "v:  SIP  / 2.0  / TCP     other.example   ;\r\n  branch  =   no  ,\r\n SIP / 2.0 / UDP 192.0.2.8 ; branch=\r\n no\r\nm:\"\\\"\\\"\" <sip:alice@192.0.2.7> ; new =\r\n  value ;\r\n  second ; q = 0.33",
		}, func(w *fields) {
			w.Flags = "folded"
			w.RequestURI += ";what=ever"
			w.ToURI, w.ToTag, w.FromTag = "sip:robert@biloxi.example", "77n", "12"
			w.ViaHost, w.ViaBranch = "192.0.2.7", "notmagic"
		}},
		{"3.1.1.2 wide range of valid characters", request, edits{
			"start":   "!odd-Method0_*+`.%x'~ sip:1_b~(x)&y't+z$/q?,/;;*:&p+w=1,d!*s$(t)@biloxi.example SIP/2.0",
			"CSeq":    "CSeq: 42 !odd-Method0_*+`.%x'~",
			"Via":     "Via: SIP/2.0/UDP pc1.atlanta.example;branch=z9hG4bK-.!%66*_+`'~",
			"From":    "From: one~` two'+_ three*%!.- <sip:alice@atlanta.example>;p''~+*_!.-%=\"Ж\";tag=_x~1'+`*%!-.",
			"To":      "To: \"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f\" <sip:1_b~(x)&y't+z$/q?,/;;*@biloxi.example>",
			"Call-ID": "Call-ID: w%ZK-!.*_+'@x`~)(><:\\/\"][?}{",
			"Contact": "ext-!.%*+_`'~:\xef\xbb\xbf大",
		}, func(w *fields) {
			w.Method, w.CSeqMethod = "!odd-Method0_*+`.%x'~", "!odd-Method0_*+`.%x'~"
			w.RequestURI = "sip:1_b~(x)&y't+z$/q?,/;;*:&p+w=1,d!*s$(t)@biloxi.example"
			w.RURIUser, w.ToUser = "1_b~(x)&y't+z$/q?,/;;*", "1_b~(x)&y't+z$/q?,/;;*"
			w.ToURI = "sip:1_b~(x)&y't+z$/q?,/;;*@biloxi.example"
			w.ViaBranch, w.FromTag = "z9hG4bK-.!%66*_+`'~", "_x~1'+`*%!-."
			w.CallID = "w%ZK-!.*_+'@x`~)(><:\\/\"][?}{"
		}},
		{"3.1.1.3 valid use of the % escaping mechanism", request, edits{
			"start": "INVITE sip:sips%3Abob%40x@biloxi.example SIP/2.0",
			"From":  "From: <sip:with%20a%20space@atlanta.example>;tag=from1",
			"To":    "To: sip:%72ob%65rt@biloxi.example",
		}, func(w *fields) {
			w.RequestURI, w.RURIUser = "sip:sips%3Abob%40x@biloxi.example", "sips%3Abob%40x"
			w.FromURI, w.FromUser = "sip:with%20a%20space@atlanta.example", "with%20a%20space"
			w.ToURI, w.ToUser = "sip:%72ob%65rt@biloxi.example", "%72ob%65rt"
		}},
		{"3.1.1.4 escaped nulls in URIs", request, edits{
			"From": "From: sip:a%00b@atlanta.example;tag=from1",
		}, func(w *fields) { w.FromURI, w.FromUser = "sip:a%00b@atlanta.example", "a%00b" }},
		{"3.1.1.5 use of % when it is not an escape", request, edits{
			"start":   "IN%56ITE sip:bob@biloxi.example SIP/2.0",
			"CSeq":    "CSeq: 42 IN%56ITE",
			"Via":     "Via: SIP/2.0/UDP pc1.atlanta.example;branch=z9hG4bK9%x",
			"From":    "From: \"%Z%41\" <sip:alice@atlanta.example>;tag=from1",
			"Contact": "C%61ll-ID: other",
		}, func(w *fields) { w.Method, w.CSeqMethod, w.ViaBranch = "IN%56ITE", "IN%56ITE", "z9hG4bK9%x" }},
		{"3.1.1.6 message with no LWS between display name and <", request, edits{
			"From": "From: Alice<sip:alice@atlanta.example>;tag=from1",
		}, nil},
		{"3.1.1.7 long values in header fields", request, edits{
			"From":    "F: sip:" + long + "@atlanta.example;tag=" + long + ";x" + long + "=y" + long + ";" + long,
			"To":      "To: \"" + long + "\"<sip:robert@biloxi.example:6000;" + long + "=" + long + ">",
			"Call-ID": "Call-ID: " + long,
			"Via":     strings.Repeat("V :  SIP/2.0/TCP p9.example\r\n", 30) + "Via: SIP/2.0/TCP p1.example;branch=" + long,
			"Contact": "Unknown-" + long + ": " + long + "; " + long + " = " + long,
		}, func(w *fields) {
			w.FromURI, w.FromUser, w.FromTag = "sip:"+long+"@atlanta.example", long, long
			w.ToURI = "sip:robert@biloxi.example:6000;" + long + "=" + long
			w.CallID = long
			w.ViaTransport, w.ViaHost, w.ViaBranch = "TCP", "p9.example", ""
		}},
		{"3.1.1.8 extra trailing octets in a UDP datagram", request, edits{
			"after": "\r\nINVITE sip:other@biloxi.example SIP/2.0\r\nCall-ID: other\r\n\r\n",
		}, func(w *fields) {
			w.Rest = "\r\nINVITE sip:other@biloxi.example SIP/2.0\r\nCall-ID: other\r\n\r\n"
		}},
		{"3.1.1.9 semicolon-separated parameters in URI user part", request, edits{
			"start": "INVITE sip:bob;p=u%40x.example@biloxi.example SIP/2.0",
		}, func(w *fields) {
			w.RequestURI, w.RURIUser = "sip:bob;p=u%40x.example@biloxi.example", "bob;p=u%40x.example"
		}},
		{"3.1.1.10 varied and unknown transport types", request, edits{
			"Via": "Via: SIP/2.0/UNKNOWN t1.example;branch=z9hG4bK1\r\nVia: SIP/2.0/SCTP t2.example;branch=z9hG4bK2\r\nVia: SIP/2.0/TLS t3.example;branch=z9hG4bK3",
		}, func(w *fields) { w.ViaTransport, w.ViaHost, w.ViaBranch = "UNKNOWN", "t1.example", "z9hG4bK1" }},
		{"3.1.1.11 multipart MIME message", request, edits{
			"Content-Type":   "Content-Type: multipart/mixed;boundary=7a9c",
			"Content-Length": fmt.Sprint("Content-Length: ", len(binary)),
			"body":           binary,
		}, func(w *fields) {
			w.ContentType, w.SDP = "multipart/mixed;boundary=7a9c", false
			w.ContentLength, w.Body = fmt.Sprint(len(binary)), binary
		}},
		{"3.1.1.12 unusual reason phrase", response, edits{
			"start": "SIP/2.0 180 = 2**2 * 3**2 * 5 просто \"число\"",
		}, func(w *fields) { w.Reason = "= 2**2 * 3**2 * 5 просто \"число\"" }},
		{"3.1.1.13 empty reason phrase", response, edits{"start": "SIP/2.0 180 "},
			func(w *fields) { w.Reason = "" }},
	})
}

func TestScan_RFC4475_invalidMessages(t *testing.T) {
	run(t, []torture{
		{"3.1.2.1 extraneous header field separators", request, edits{
			"Via":     "Via: SIP/2.0/UDP pc1.atlanta.example;;,;,,",
			"Contact": "Contact: \"A\" <sip:alice@pc1.atlanta.example>;;;;",
		}, func(w *fields) { w.Flags, w.ViaBranch = "odd-via", "" }},
		{"3.1.2.2 Content-Length larger than message", request, edits{"Content-Length": "Content-Length: 9999"},
			func(w *fields) { w.Flags, w.ContentLength = "short-body", "9999" }},
		{"3.1.2.3 negative Content-Length", request, edits{"Content-Length": "Content-Length: -999"},
			func(w *fields) { w.Flags, w.ContentLength = "bad-length", "" }},
		{"3.1.2.4 request scalar fields with overlarge values", request, edits{
			"CSeq":         "CSeq: 36893488147419103274 INVITE",
			"Max-Forwards": "Max-Forwards: 300",
			"Contact":      "Expires: 1" + strings.Repeat("0", 100) + "\r\nContact: <sip:alice@pc1.atlanta.example>;expires=280297596632815",
		}, func(w *fields) { w.Flags, w.CSeq = "bad-cseq", "" }},
		{"3.1.2.5 response scalar fields with overlarge values", response, edits{
			"CSeq": "CSeq: 9292394834772304023312 OPTIONS\r\nRetry-After: 949302838503028349304023988\r\nWarning: 1812 x \"y\"",
		}, func(w *fields) { w.Flags, w.CSeq, w.CSeqMethod = "bad-cseq", "", "OPTIONS" }},
		{"3.1.2.6 unterminated quoted string in display name", request, edits{
			"To": "To: \"Mr. Robert <sip:robert@biloxi.example>",
		}, func(w *fields) { w.Flags = "unbalanced-quote" }},
		{"3.1.2.7 <> enclosing Request-URI", request, edits{"start": "INVITE <sip:bob@biloxi.example> SIP/2.0"},
			func(w *fields) { w.Flags = "odd-start-line" }},
		{"3.1.2.8 malformed SIP Request-URI (embedded LWS)", request, edits{"start": "INVITE sip:bob@biloxi.example; lr SIP/2.0"},
			func(w *fields) { w.Flags, w.RequestURI = "odd-request-uri", "sip:bob@biloxi.example; lr" }},
		{"3.1.2.9 multiple SP separating Request-Line elements", request, edits{"start": "INVITE  sip:bob@biloxi.example  SIP/2.0"},
			func(w *fields) { w.Flags = "odd-start-line" }},
		{"3.1.2.10 SP characters at end of Request-Line", request, edits{"start": "INVITE sip:bob@biloxi.example SIP/2.0  "},
			func(w *fields) { w.Flags = "odd-start-line" }},
		{"3.1.2.11 escaped headers in SIP Request-URI", request, edits{"start": "INVITE sip:bob@biloxi.example?Route=%3Csip:x.example%3E SIP/2.0"},
			func(w *fields) {
				w.Flags, w.RequestURI = "odd-request-uri", "sip:bob@biloxi.example?Route=%3Csip:x.example%3E"
			}},
		{"3.1.2.12 invalid time zone in Date header field", request, edits{"Contact": "Date: Thu, 01 Jan 2026 16:00:00 EST"}, nil},
		{"3.1.2.13 failure to enclose name-addr URI in <>", request, edits{"Contact": "Contact: sip:alice@pc1.atlanta.example?Route=%3Csip:x.example%3E"}, nil},
		{"3.1.2.14 spaces within addr-spec", request, edits{"To": "To: \"Watson, Robert\" < sip:robert@biloxi.example >"},
			func(w *fields) { w.Flags = "odd-address" }},
		{"3.1.2.15 non-token characters in display name", request, edits{"From": "From:    Watson, Alice <sip:alice@atlanta.example>;tag=from1"},
			func(w *fields) { w.Flags = "odd-address" }},
		{"3.1.2.16 unknown protocol version", request, edits{
			"start": "INVITE sip:bob@biloxi.example SIP/7.0",
			"Via":   "Via:   SIP/7.0/UDP pc1.atlanta.example;branch=z9hG4bKbase",
		}, func(w *fields) { w.Flags = "bad-version odd-via" }},
		{"3.1.2.17 start line and CSeq method mismatch", request, edits{"CSeq": "CSeq: 42 OPTIONS"},
			func(w *fields) { w.Flags, w.CSeqMethod = "cseq-mismatch", "OPTIONS" }},
		{"3.1.2.18 unknown method with CSeq method mismatch", request, edits{"start": "NEWER sip:bob@biloxi.example SIP/2.0"},
			func(w *fields) { w.Flags, w.Method = "cseq-mismatch", "NEWER" }},
		{"3.1.2.19 overlarge response code", response, edits{"start": "SIP/2.0 4294967476 do not wrap"},
			func(w *fields) { w.Flags, w.Status, w.Reason = "bad-status", "0 4294967476", "do not wrap" }},
	})
}

func TestScan_RFC4475_layers(t *testing.T) {
	run(t, []torture{
		{"3.2.1 missing transaction identifier", request, edits{"Via": "Via: SIP/2.0/UDP pc1.atlanta.example;branch=z9hG4bK"},
			func(w *fields) { w.ViaBranch = "z9hG4bK" }},
		{"3.3.1 missing required header fields", request, edits{"Call-ID": gone, "From": gone, "To": gone}, func(w *fields) {
			w.Flags, w.CallID = "missing-call-id missing-from missing-to", ""
			w.FromURI, w.FromUser, w.FromHost, w.FromTag = "", "", "", ""
			w.ToURI, w.ToUser, w.ToHost = "", "", ""
		}},
		{"3.3.2 Request-URI with unknown scheme", request, edits{"start": "INVITE nobodyKnows:opaque SIP/2.0"},
			func(w *fields) { w.RequestURI, w.RURIUser, w.RURIHost = "nobodyKnows:opaque", "", "" }},
		{"3.3.3 Request-URI with known but atypical scheme", request, edits{"start": "INVITE soap.beep://192.0.2.9:3002 SIP/2.0"},
			func(w *fields) { w.RequestURI, w.RURIUser, w.RURIHost = "soap.beep://192.0.2.9:3002", "", "192.0.2.9" }},
		{"3.3.4 unknown URI schemes in header fields", request, edits{
			"To":   "To: isbn:9783161484100",
			"From": "From: <http://www.atlanta.example>;tag=from1",
		}, func(w *fields) {
			w.ToURI, w.ToUser, w.ToHost = "isbn:9783161484100", "", ""
			w.FromURI, w.FromUser, w.FromHost = "http://www.atlanta.example", "", "www.atlanta.example"
		}},
		{"3.3.5 Proxy-Require and Require", request, edits{"Contact": "Require: noOne, knows\r\nProxy-Require: this"}, nil},
		{"3.3.6 unknown Content-Type", request, edits{"Content-Type": "Content-Type: application/unknownformat"},
			func(w *fields) { w.ContentType, w.SDP = "application/unknownformat", false }},
		{"3.3.7 unknown authorization scheme", request, edits{"Contact": "Authorization: NoOneKnows opaque=here"}, nil},
		{"3.3.8 multiple values in single value required fields", request, edits{
			"Contact": "CSeq: 59 INVITE\r\nCall-ID: other\r\nTo: sip:x@x.example\r\nFrom: sip:y@y.example;tag=y\r\nMax-Forwards: 5",
		}, func(w *fields) { w.Flags = "duplicate" }},
		{"3.3.9 multiple Content-Length values", request, edits{"Content-Length": "Content-Length: 5\r\nContent-Length: 3"},
			func(w *fields) { w.Flags = "duplicate" }},
		{"3.3.10 200 OK response with broadcast Via header field value", response, edits{
			"Via": "Via: SIP/2.0/UDP pc1.atlanta.example;branch=z9hG4bKbase\r\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKno",
		}, nil},
		{"3.3.11 Max-Forwards of zero", request, edits{"Max-Forwards": "Max-Forwards: 0"}, nil},
		{"3.3.12 REGISTER with a contact header parameter", request, edits{"Contact": "Contact: sip:+1555@gw.example;unknown"}, nil},
		{"3.3.13 REGISTER with a URL parameter", request, edits{"Contact": "Contact: <sip:+1555@gw.example;unknown>"}, nil},
		{"3.3.14 REGISTER with a URL escaped header", request, edits{"Contact": "M: <sip:a@b.example?Route=%3Csip:x.example%3E>"}, nil},
		{"3.3.15 unacceptable Accept offering", request, edits{"Contact": "Accept: text/nobodyKnowsThis"}, nil},
		{"3.4.1 INVITE with RFC 2543 syntax", request, edits{
			"Via":            "Via: SIP/2.0/UDP gw.example",
			"From":           "From: <sip:+1555@atlanta.example;user=phone>",
			"To":             "To: sip:robert@biloxi.example;user=phone",
			"Content-Length": gone,
		}, func(w *fields) {
			w.ViaHost, w.ViaBranch = "gw.example", ""
			w.FromURI, w.FromUser, w.FromTag = "sip:+1555@atlanta.example;user=phone", "+1555", ""
			w.ContentLength = ""
		}},
	})
}
