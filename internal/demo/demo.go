// Package demo makes a few realistic calls, as a proxy would report them by
// HEP: something to look at before there is real traffic.
package demo

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// A Call is the messages of one Call-ID, in the order of time.
type Call struct {
	ID       string
	What     string // in a few words, for people
	Messages []Message
}

// A Message is one SIP message between two addresses.
type Message struct {
	Time     time.Time
	Src, Dst netip.AddrPort
	Payload  []byte
}

// The hosts of the demonstration: addresses of RFC 5737, meant for it.
var (
	alice     = netip.MustParseAddrPort("192.0.2.10:5060")
	bob       = netip.MustParseAddrPort("203.0.113.20:5060")
	proxy     = netip.MustParseAddrPort("198.51.100.1:5060")
	agentID   = uint32(2001)
	agentName = "demo-proxy"
)

// Calls returns the demonstration's calls. The last message is at end; run
// keeps the Call-IDs of two runs apart.
func Calls(end time.Time, run string) []Call {
	start := end.Add(-12 * time.Second)
	return []Call{
		answered(start, run),
		cancelled(start.Add(2*time.Second), run),
		registration(start.Add(4*time.Second), run),
		broken(start.Add(6*time.Second), run),
	}
}

// script writes the messages of one call.
type script struct {
	call Call
	at   time.Time
}

func newScript(at time.Time, id, what string) *script {
	return &script{call: Call{ID: id, What: what}, at: at}
}

// say adds a message after a pause. The text's {…} are filled in, its lines
// end as SIP wants.
func (s *script) say(pause time.Duration, src, dst netip.AddrPort, text, body string) {
	s.at = s.at.Add(pause)
	contentType := ""
	if body != "" {
		contentType = "Content-Type: application/sdp\n"
	}
	text = strings.TrimSpace(text) + "\n" + contentType + fmt.Sprintf("Content-Length: %d\n\n", len(crlf(body)))
	text = strings.NewReplacer("{call}", s.call.ID, "{src}", src.String(), "{dst}", dst.String()).Replace(text)
	s.call.Messages = append(s.call.Messages, Message{s.at, src, dst, []byte(crlf(text) + crlf(body))})
}

// again sends the last message once more.
func (s *script) again(pause time.Duration) {
	m := s.call.Messages[len(s.call.Messages)-1]
	s.at = s.at.Add(pause)
	m.Time = s.at
	s.call.Messages = append(s.call.Messages, m)
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func sdp(host netip.AddrPort, port int) string {
	return fmt.Sprintf(`v=0
o=- 3724394400 1 IN IP4 %[1]s
s=call
c=IN IP4 %[1]s
t=0 0
m=audio %[2]d RTP/AVP 8 0 101
a=rtpmap:101 telephone-event/8000
a=sendrecv
`, host.Addr(), port)
}

const ms = time.Millisecond

// head is the part that requests and replies of one transaction share.
func head(via, branch, toTag, cseq string) string {
	if toTag != "" {
		toTag = ";tag=" + toTag
	}
	return "Via: SIP/2.0/UDP " + via + ";branch=z9hG4bK-" + branch + `
From: "Alice" <sip:alice@example.com>;tag=a73kszlfl
To: <sip:bob@example.com>` + toTag + `
Call-ID: {call}
CSeq: ` + cseq + "\n"
}

// answered is a call with a challenge, a retransmission, and a BYE.
func answered(at time.Time, run string) Call {
	s := newScript(at, "answered-"+run+"@192.0.2.10", "a call with authentication and a retransmitted INVITE")
	request := "INVITE sip:bob@example.com SIP/2.0\n"
	more := "Max-Forwards: 70\nContact: <sip:alice@192.0.2.10>\nUser-Agent: demo-phone/1.0\n"
	auth := `Proxy-Authorization: Digest username="alice", realm="example.com", nonce="84f1c1ae6cbe5ua9c8e88dfa3ecm3459", uri="sip:bob@example.com", response="7587245234b3434cc3412213e5f113a5"` + "\n"
	a, p := alice.String(), proxy.String()
	s.say(0, alice, proxy, request+head(a, "1", "", "1 INVITE")+more, sdp(alice, 49170))
	s.say(2*ms, proxy, alice, "SIP/2.0 407 Proxy Authentication Required\n"+head(a, "1", "p-77", "1 INVITE")+`Proxy-Authenticate: Digest realm="example.com", nonce="84f1c1ae6cbe5ua9c8e88dfa3ecm3459"`, "")
	s.say(11*ms, alice, proxy, "ACK sip:bob@example.com SIP/2.0\n"+head(a, "1", "p-77", "1 ACK"), "")
	s.say(9*ms, alice, proxy, request+head(a, "2", "", "2 INVITE")+more+auth, sdp(alice, 49170))
	s.say(1*ms, proxy, alice, "SIP/2.0 100 Trying\n"+head(a, "2", "", "2 INVITE"), "")
	s.say(2*ms, proxy, bob, request+"Record-Route: <sip:198.51.100.1;lr>\n"+head(p, "p2", "", "2 INVITE")+more, sdp(alice, 49170))
	s.again(500 * ms)
	s.say(120*ms, bob, proxy, "SIP/2.0 180 Ringing\n"+head(p, "p2", "b-314", "2 INVITE"), "")
	s.say(1*ms, proxy, alice, "SIP/2.0 180 Ringing\n"+head(a, "2", "b-314", "2 INVITE"), "")
	s.say(2300*ms, bob, proxy, "SIP/2.0 200 OK\n"+head(p, "p2", "b-314", "2 INVITE")+"Contact: <sip:bob@203.0.113.20>\n", sdp(bob, 30010))
	s.say(1*ms, proxy, alice, "SIP/2.0 200 OK\n"+head(a, "2", "b-314", "2 INVITE")+"Contact: <sip:bob@203.0.113.20>\n", sdp(bob, 30010))
	s.say(14*ms, alice, proxy, "ACK sip:bob@203.0.113.20 SIP/2.0\n"+head(a, "3", "b-314", "2 ACK"), "")
	s.say(1*ms, proxy, bob, "ACK sip:bob@203.0.113.20 SIP/2.0\n"+head(p, "p3", "b-314", "2 ACK"), "")
	s.say(8200*ms, alice, proxy, "BYE sip:bob@203.0.113.20 SIP/2.0\n"+head(a, "4", "b-314", "3 BYE"), "")
	s.say(1*ms, proxy, bob, "BYE sip:bob@203.0.113.20 SIP/2.0\n"+head(p, "p4", "b-314", "3 BYE"), "")
	s.say(18*ms, bob, proxy, "SIP/2.0 200 OK\n"+head(p, "p4", "b-314", "3 BYE"), "")
	s.say(1*ms, proxy, alice, "SIP/2.0 200 OK\n"+head(a, "4", "b-314", "3 BYE"), "")
	return s.call
}

// cancelled is a call given up while it rang.
func cancelled(at time.Time, run string) Call {
	s := newScript(at, "cancelled-"+run+"@192.0.2.10", "a call cancelled while it rang")
	a, p := alice.String(), proxy.String()
	s.say(0, alice, proxy, "INVITE sip:bob@example.com SIP/2.0\n"+head(a, "c1", "", "1 INVITE"), sdp(alice, 49180))
	s.say(1*ms, proxy, alice, "SIP/2.0 100 Trying\n"+head(a, "c1", "", "1 INVITE"), "")
	s.say(1*ms, proxy, bob, "INVITE sip:bob@203.0.113.20 SIP/2.0\n"+head(p, "pc1", "", "1 INVITE"), sdp(alice, 49180))
	s.say(90*ms, bob, proxy, "SIP/2.0 180 Ringing\n"+head(p, "pc1", "b-9", "1 INVITE"), "")
	s.say(1*ms, proxy, alice, "SIP/2.0 180 Ringing\n"+head(a, "c1", "b-9", "1 INVITE"), "")
	s.say(1900*ms, alice, proxy, "CANCEL sip:bob@example.com SIP/2.0\n"+head(a, "c1", "", "1 CANCEL"), "")
	s.say(1*ms, proxy, alice, "SIP/2.0 200 canceling\n"+head(a, "c1", "p-1", "1 CANCEL"), "")
	s.say(1*ms, proxy, bob, "CANCEL sip:bob@203.0.113.20 SIP/2.0\n"+head(p, "pc1", "", "1 CANCEL"), "")
	s.say(12*ms, bob, proxy, "SIP/2.0 200 OK\n"+head(p, "pc1", "b-9", "1 CANCEL"), "")
	s.say(1*ms, bob, proxy, "SIP/2.0 487 Request Terminated\n"+head(p, "pc1", "b-9", "1 INVITE"), "")
	s.say(1*ms, proxy, bob, "ACK sip:bob@203.0.113.20 SIP/2.0\n"+head(p, "pc1", "b-9", "1 ACK"), "")
	s.say(1*ms, proxy, alice, "SIP/2.0 487 Request Terminated\n"+head(a, "c1", "b-9", "1 INVITE"), "")
	s.say(10*ms, alice, proxy, "ACK sip:bob@example.com SIP/2.0\n"+head(a, "c1", "b-9", "1 ACK"), "")
	return s.call
}

// registration is a REGISTER with its challenge.
func registration(at time.Time, run string) Call {
	s := newScript(at, "registration-"+run+"@203.0.113.20", "a registration with authentication")
	who := func(cseq, toTag string) string {
		if toTag != "" {
			toTag = ";tag=" + toTag
		}
		return "Via: SIP/2.0/UDP " + bob.String() + ";branch=z9hG4bK-r" + cseq + `
From: <sip:bob@example.com>;tag=456248
To: <sip:bob@example.com>` + toTag + `
Call-ID: {call}
CSeq: ` + cseq + " REGISTER\n"
	}
	contact := "Contact: <sip:bob@203.0.113.20>;expires=600\n"
	s.say(0, bob, proxy, "REGISTER sip:example.com SIP/2.0\n"+who("1", "")+contact, "")
	s.say(1*ms, proxy, bob, "SIP/2.0 401 Unauthorized\n"+who("1", "p-5")+`WWW-Authenticate: Digest realm="example.com", nonce="ea9c8e88df84f1cec4341ae6cbe5a359"`, "")
	s.say(14*ms, bob, proxy, "REGISTER sip:example.com SIP/2.0\n"+who("2", "")+contact+`Authorization: Digest username="bob", realm="example.com", nonce="ea9c8e88df84f1cec4341ae6cbe5a359", uri="sip:example.com", response="dfe56131d1958046689d83306477ecc"`, "")
	s.say(2*ms, proxy, bob, "SIP/2.0 200 OK\n"+who("2", "p-6")+contact, "")
	return s.call
}

// broken is a request that no parser likes: it is traced like any other.
func broken(at time.Time, run string) Call {
	s := newScript(at, "broken-"+run+"@192.0.2.66", "a broken request from a scanner")
	text := "INVITE sip:1000@198.51.100.1  SIP/2.0\nVia SIP/2.0/UDP 192.0.2.66\nFROM : \"x\" <sip:1000@\xff\x00>;TAG = q\nt: <sip:900441904911004@198.51.100.1\ni: " +
		s.call.ID + "\nCSeq: 99999999999 INVITE\nContent-Length: 4000\n\nv=0"
	s.call.Messages = append(s.call.Messages, Message{at, netip.MustParseAddrPort("192.0.2.66:5071"), proxy, []byte(crlf(text))})
	return s.call
}

// AppendHEP appends m to dst as a HEP version 3 packet.
func (m *Message) AppendHEP(dst []byte) ([]byte, error) {
	p := hep.Packet{
		Version: 3, Protocol: 17, Type: hep.TypeSIP, CaptureID: agentID, Node: []byte(agentName),
		Src: m.Src.Addr(), Dst: m.Dst.Addr(), SrcPort: m.Src.Port(), DstPort: m.Dst.Port(), Payload: m.Payload,
	}
	if err := p.SetTime(m.Time); err != nil {
		return dst, err
	}
	return p.Append(dst)
}
