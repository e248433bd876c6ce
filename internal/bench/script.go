package bench

// The messages of a call between two phones over a proxy that reports them, as
// proxies of today write them. A name in braces is a field of the call (see
// fields) or of the site it belongs to (see sites).
//
// The eight messages have 800 bytes on average, which a test holds.
const (
	invite = `INVITE sip:{callee}@{domain} SIP/2.0
Via: SIP/2.0/UDP {ip}:5060;rport;branch=z9hG4bK{branch1}
Max-Forwards: 70
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>
Call-ID: {callid}
CSeq: 20 INVITE
Contact: <sip:{caller}@{ip}:5060;transport=udp>;+sip.instance="<urn:uuid:{id8}-{id4a}-{id4b}-{id4c}-{id12}>"
User-Agent: {agent}
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE
Supported: replaces, timer
Proxy-Authorization: Digest username="{caller}", realm="{domain}", nonce="{nonce}", uri="sip:{callee}@{domain}", response="{response}", algorithm=MD5
Session-Expires: 1800
Content-Type: application/sdp

v=0
o=- {session} {session} IN IP4 {ip}
s=-
c=IN IP4 {ip}
t=0 0
m=audio {port} RTP/AVP {codecs} 101
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
`
	trying = `SIP/2.0 100 Trying
Via: SIP/2.0/UDP {ip}:5060;rport=5060;branch=z9hG4bK{branch1};received={ip}
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>
Call-ID: {callid}
CSeq: 20 INVITE
Server: {proxy}
Warning: 392 {edge}:5060 "Noisy feedback tells:  pid=2071 req_src_ip={ip} req_src_port=5060 in_uri=sip:{callee}@{domain} out_uri=sip:{callee}@{peer}:5060 via_cnt==1"

`
	progress = `SIP/2.0 183 Session Progress
Via: SIP/2.0/UDP {ip}:5060;rport=5060;branch=z9hG4bK{branch1};received={ip}
Record-Route: <sip:{edge};lr=on;ftag={fromtag};did=a1b.{did}>
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>;tag={totag}
Call-ID: {callid}
CSeq: 20 INVITE
Contact: <sip:{callee}@{peer}:5060>
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE
Server: {gateway}
P-Charging-Vector: icid-value={id8}{id12}.{did};icid-generated-at={edge};orig-ioi={domain}
Content-Type: application/sdp

v=0
o=gw {session} 1 IN IP4 {peer}
s=-
c=IN IP4 {peer}
t=0 0
m=audio {port2} RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
`
	ringing = `SIP/2.0 180 Ringing
Via: SIP/2.0/UDP {ip}:5060;rport=5060;branch=z9hG4bK{branch1};received={ip}
Record-Route: <sip:{edge};lr=on;ftag={fromtag};did=a1b.{did}>
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>;tag={totag}
Call-ID: {callid}
CSeq: 20 INVITE
Contact: <sip:{callee}@{peer}:5060>
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE
Server: {gateway}
P-Charging-Vector: icid-value={id8}{id12}.{did};icid-generated-at={edge};orig-ioi={domain}

`
	answer = `SIP/2.0 200 OK
Via: SIP/2.0/UDP {ip}:5060;rport=5060;branch=z9hG4bK{branch1};received={ip}
Record-Route: <sip:{edge};lr=on;ftag={fromtag};did=a1b.{did}>
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>;tag={totag}
Call-ID: {callid}
CSeq: 20 INVITE
Contact: <sip:{callee}@{peer}:5060>
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE
Supported: replaces, timer
Session-Expires: 1800;refresher=uac
Server: {gateway}
P-Asserted-Identity: <sip:{callee}@{domain};user=phone>
P-Charging-Vector: icid-value={id8}{id12}.{did};icid-generated-at={edge};orig-ioi={domain}
Content-Type: application/sdp

v=0
o=gw {session} 2 IN IP4 {peer}
s=-
c=IN IP4 {peer}
t=0 0
m=audio {port2} RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=sendrecv
`
	ack = `ACK sip:{callee}@{peer}:5060 SIP/2.0
Via: SIP/2.0/UDP {ip}:5060;rport;branch=z9hG4bK{branch2}
Route: <sip:{edge};lr=on;ftag={fromtag};did=a1b.{did}>
Max-Forwards: 70
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>;tag={totag}
Call-ID: {callid}
CSeq: 20 ACK
Contact: <sip:{caller}@{ip}:5060;transport=udp>
User-Agent: {agent}
Proxy-Authorization: Digest username="{caller}", realm="{domain}", nonce="{nonce}", uri="sip:{callee}@{domain}", response="{response}", algorithm=MD5

`
	bye = `BYE sip:{callee}@{peer}:5060 SIP/2.0
Via: SIP/2.0/UDP {ip}:5060;rport;branch=z9hG4bK{branch3}
Route: <sip:{edge};lr=on;ftag={fromtag};did=a1b.{did}>
Max-Forwards: 70
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>;tag={totag}
Call-ID: {callid}
CSeq: 21 BYE
User-Agent: {agent}
Proxy-Authorization: Digest username="{caller}", realm="{domain}", nonce="{nonce}", uri="sip:{callee}@{peer}:5060", response="{response2}", algorithm=MD5
Reason: Q.850;cause=16;text="Normal call clearing"

`
	goodbye = `SIP/2.0 200 OK
Via: SIP/2.0/UDP {ip}:5060;rport=5060;branch=z9hG4bK{branch3};received={ip}
Record-Route: <sip:{edge};lr=on;ftag={fromtag};did=a1b.{did}>
From: "{caller}" <sip:{caller}@{domain}>;tag={fromtag}
To: <sip:{callee}@{domain}>;tag={totag}
Call-ID: {callid}
CSeq: 21 BYE
Server: {gateway}
P-RTP-Stat: PS={dur}0,OS=16{dur}00,PR={dur}0,OR=16{dur}00,PL=0,JI=2

`
)

// A line is one message of a call and which way it goes.
type line struct {
	text string
	back bool // from the proxy to the caller
}

// lines returns the messages of a call in order.
func lines() []line {
	return []line{
		{invite, false}, {trying, true}, {progress, true}, {ringing, true},
		{answer, true}, {ack, false}, {bye, false}, {goodbye, true},
	}
}

// messages is the number of messages of a call.
const messages = 8

// A site is a proxy with the phones and gateways around it.
type site map[string]string

// sites returns the sites whose calls are mixed.
func sites() []site {
	domains := []string{"sip.example.com", "voice.example.net", "pbx1.example.org", "tenant-4711.cloudpbx.example.com"}
	agents := []string{"Yealink SIP-T46U 108.86.0.118", "snomD785/10.1.184.15", "Grandstream GXP2170 1.0.11.79",
		"PolyEdge-E450-UA/8.2.1.3019", "Cisco-CP8841-3PCC/12-0-4", "FRITZ!OS", "Linphone-Desktop/5.2.4 (ubuntu)"}
	gateways := []string{"AudioCodes-Mediant/v.7.40A.250.440", "Asterisk PBX 20.9.3", "FreeSWITCH-mod_sofia/1.10.12-release", "SBC/9.3.0p4"}
	codecs := []string{"8 0 18", "9 8 0", "0 8", "8 0 9 111"}
	callIDs := []string{ // as SBCs, soft phones and hard phones make them
		"{id8}-{id4a}-{id4b}-{id4c}-{id12}", "{id8}{id4a}{id4b}{id4c}{id12}@{ip}:5060", "{number}@{domain}",
	}
	list := make([]site, 16)
	for i := range list {
		list[i] = site{
			"domain":  domains[i%len(domains)],
			"agent":   agents[i%len(agents)],
			"gateway": gateways[(i/2)%len(gateways)],
			"proxy":   "kamailio (5.8.6 (x86_64/linux))",
			"codecs":  codecs[(i/3)%len(codecs)],
			"edge":    proxyAddr(i).String(),
			"peer":    peerAddr(i).String(),
			"callid":  callIDs[i%len(callIDs)],
		}
	}
	return list
}

// fields returns what is different in every call, and how many characters of
// what kind it has.
func fields() []field {
	return []field{
		{"id8", 8, hexDigits}, {"id4a", 4, hexDigits}, {"id4b", 4, hexDigits}, {"id4c", 4, hexDigits}, {"id12", 12, hexDigits},
		{"number", 20, callNumber},
		{"caller", 11, digits}, {"callee", 11, digits},
		{"fromtag", 10, hexDigits}, {"totag", 10, hexDigits}, {"did", 4, hexDigits},
		{"branch1", 16, hexDigits}, {"branch2", 16, hexDigits}, {"branch3", 16, hexDigits},
		{"nonce", 40, hexDigits}, {"response", 32, hexDigits}, {"response2", 32, hexDigits},
		{"session", 10, digits}, {"port", 5, port}, {"port2", 5, port}, {"dur", 2, digits},
		{"ip", 14, address},
	}
}
