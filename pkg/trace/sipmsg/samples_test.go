package sipmsg_test

import "strings"

// crlf makes a message of lines written one below the other. The empty line
// between header and body is written too.
func crlf(s string) string {
	return strings.ReplaceAll(strings.TrimPrefix(s, "\n"), "\n", "\r\n")
}

// sdp is the body of the samples, 289 bytes long.
var sdp = crlf(`
v=0
o=pbx 2890844526 2890844527 IN IP4 192.0.2.44
s=session
c=IN IP4 192.0.2.44
t=0 0
m=audio 40376 RTP/AVP 8 0 18 101
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:18 G729/8000
a=fmtp:18 annexb=no
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
a=sendrecv
`)

// What a scanner sees all day. The lengths are those of common traffic.
var (
	invite = crlf(`
INVITE sip:+4930123456@sbc.example.com:5060;transport=udp SIP/2.0
Via: SIP/2.0/UDP 192.0.2.44:5060;branch=z9hG4bK-524287-1---a7c1b3f2d9e84c55;rport
Via: SIP/2.0/UDP 10.4.0.17:5080;branch=z9hG4bK3f1c;received=10.4.0.17
Max-Forwards: 69
Record-Route: <sip:192.0.2.44;lr;ftag=8f3cd1aa>
Contact: <sip:alice@10.4.0.17:5080;transport=udp>
To: <sip:+4930123456@sbc.example.com>
From: "Alice Example" <sip:alice@example.com>;tag=8f3cd1aa
Call-ID: 9a31f0c2-77be-4d0c-8f39-5b1b1e7a2c10@10.4.0.17
CSeq: 20417 INVITE
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, PRACK, UPDATE
Supported: replaces, timer, 100rel
User-Agent: Example PBX 7.4.1
P-Asserted-Identity: <sip:alice@example.com>
Session-Expires: 1800
Content-Type: application/sdp
Content-Length: 289

`) + sdp

	ok = crlf(`
SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.44:5060;branch=z9hG4bK-524287-1---a7c1b3f2d9e84c55;rport=5060
Via: SIP/2.0/UDP 10.4.0.17:5080;branch=z9hG4bK3f1c;received=10.4.0.17
Record-Route: <sip:192.0.2.44;lr;ftag=8f3cd1aa>
Contact: <sip:+4930123456@198.51.100.9:5060>
To: <sip:+4930123456@sbc.example.com>;tag=as6b1f0e77
From: "Alice Example" <sip:alice@example.com>;tag=8f3cd1aa
Call-ID: 9a31f0c2-77be-4d0c-8f39-5b1b1e7a2c10@10.4.0.17
CSeq: 20417 INVITE
Server: Example Gateway 2.0
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, PRACK, UPDATE
Supported: replaces, timer
Session-Expires: 1800;refresher=uac
Content-Type: application/sdp
Content-Length: 289

`) + sdp

	register = crlf(`
REGISTER sip:example.com SIP/2.0
Via: SIP/2.0/TCP 10.4.0.17:50812;branch=z9hG4bK-d8754z-1f8a2b;rport;alias
Max-Forwards: 70
Contact: <sip:alice@10.4.0.17:50812;transport=tcp;ob>;expires=300;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000a95a0e128>"
To: <sip:alice@example.com>
From: <sip:alice@example.com>;tag=c4d2
Call-ID: ODk1NzQ3NmE4ZmQ0YjU2NzI0ZDE
CSeq: 1021 REGISTER
User-Agent: Example Phone 3.1
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE
Authorization: Digest username="alice",realm="example.com",nonce="4f1c2ab8",uri="sip:example.com",response="6629fae49393a05397450978507c4ef1",algorithm=MD5
Content-Length: 0

`)

	ack = crlf(`
ACK sip:+4930123456@198.51.100.9:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.44:5060;branch=z9hG4bK-524287-1---b1;rport
Max-Forwards: 69
To: <sip:+4930123456@sbc.example.com>;tag=as6b1f0e77
From: "Alice Example" <sip:alice@example.com>;tag=8f3cd1aa
Call-ID: 9a31f0c2-77be-4d0c-8f39-5b1b1e7a2c10@10.4.0.17
CSeq: 20417 ACK
Content-Length: 0

`)

	compact = crlf(`
INVITE sip:+4930123456@sbc.example.com SIP/2.0
v: SIP/2.0/UDP 192.0.2.44:5060;branch=z9hG4bK-524287-1---a7c1b3f2d9e84c55;rport
v: SIP/2.0/UDP 10.4.0.17:5080;branch=z9hG4bK3f1c;received=10.4.0.17
Max-Forwards: 69
m: <sip:alice@10.4.0.17:5080;transport=udp>
t: <sip:+4930123456@sbc.example.com>
f: "Alice Example" <sip:alice@example.com>;tag=8f3cd1aa
i: 9a31f0c2-77be-4d0c-8f39-5b1b1e7a2c10@10.4.0.17
CSeq: 20417 INVITE
k: replaces, timer, 100rel
c: application/sdp
l: 289

`) + sdp

	folded = crlf(`
INVITE sip:+4930123456@sbc.example.com SIP/2.0
Via: SIP/2.0/UDP 192.0.2.44:5060
 ;branch=z9hG4bK-524287-1---a7c1b3f2d9e84c55
 ;rport
Via: SIP/2.0/UDP 10.4.0.17:5080;branch=z9hG4bK3f1c;received=10.4.0.17
Max-Forwards: 69
Contact: <sip:alice@10.4.0.17:5080;transport=udp>
To:
 <sip:+4930123456@sbc.example.com>
From: "Alice Example" <sip:alice@example.com>
	; tag = 8f3cd1aa
Call-ID:
  9a31f0c2-77be-4d0c-8f39-5b1b1e7a2c10@10.4.0.17
CSeq: 20417
 INVITE
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER,
  NOTIFY, INFO, PRACK, UPDATE
User-Agent: Example PBX
 7.4.1
Content-Type: application/sdp
Content-Length: 289

`) + sdp
)
