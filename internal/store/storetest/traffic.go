package storetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Traffic makes events as a busy network has them: calls of 8 messages, 4,000
// calls at a time, messages of about 800 bytes, Call-IDs of three common
// shapes, some microseconds from one message to the next.
type Traffic struct {
	rand  *rand.Rand
	now   time.Time
	gap   time.Duration
	calls []call
	next  int
}

type call struct {
	id       string
	from, to string
	tag      uint32
	step     int
}

// NewTraffic starts traffic at a time. The same seed makes the same traffic.
func NewTraffic(seed uint64, start time.Time) *Traffic {
	t := &Traffic{rand: rand.New(rand.NewPCG(seed, 1)), now: start, gap: 10 * time.Microsecond, calls: make([]call, 4000)}
	for i := range t.calls {
		t.calls[i] = t.newCall()
		t.calls[i].step = t.rand.IntN(len(steps))
	}
	return t
}

// Fill overwrites events with the next of the traffic. It uses the payloads
// that are there again.
func (t *Traffic) Fill(events []trace.Event) {
	for i := range events {
		t.fill(&events[i])
	}
}

// Events returns the next n events.
func (t *Traffic) Events(n int) []trace.Event {
	events := make([]trace.Event, n)
	t.Fill(events)
	return events
}

var (
	caller = netip.MustParseAddrPort("192.0.2.17:5060")
	callee = netip.MustParseAddrPort("198.51.100.4:5060")
)

func (t *Traffic) fill(e *trace.Event) {
	c := &t.calls[t.next]
	t.next = (t.next + 1) % len(t.calls)
	t.now = t.now.Add(t.gap)
	s := steps[c.step]
	payload := s.append(e.Payload[:0], c)
	*e = trace.Event{
		Time:      t.now,
		Agent:     trace.Agent{Name: "edge-1"},
		Transport: trace.UDP,
		Src:       caller,
		Dst:       callee,
		Direction: trace.In,
		Type:      trace.TypeSIP,
		Payload:   payload,
	}
	if s.back {
		e.Src, e.Dst, e.Direction = callee, caller, trace.Out
	}
	e.Identify()
	if c.step++; c.step == len(steps) {
		*c = t.newCall()
	}
}

func (t *Traffic) newCall() call {
	c := call{
		from: fmt.Sprintf("49301%07d", t.rand.IntN(1e7)),
		to:   fmt.Sprintf("49892%07d", t.rand.IntN(1e7)),
		tag:  t.rand.Uint32(),
	}
	switch t.rand.IntN(3) {
	case 0:
		a, b := t.rand.Uint64(), t.rand.Uint64()
		c.id = fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", uint32(a), uint16(a>>32), a>>52, b&0xfff, b>>16)
	case 1:
		c.id = fmt.Sprintf("%016x%016x@192.0.2.17:5060", t.rand.Uint64(), t.rand.Uint64())
	default:
		c.id = fmt.Sprintf("%d@edge-1.example.com", t.rand.Uint64())
	}
	return c
}

// A step is one message of a call.
type step struct {
	start  string // up to the users, or the whole status line
	method string
	cseq   string
	back   bool
	body   string
}

var steps = [...]step{
	{start: "INVITE", method: "INVITE", cseq: "101", body: offer},
	{start: "100 Trying", method: "INVITE", cseq: "101", back: true},
	{start: "180 Ringing", method: "INVITE", cseq: "101", back: true, body: offer},
	{start: "183 Session Progress", method: "INVITE", cseq: "101", back: true, body: offer},
	{start: "200 OK", method: "INVITE", cseq: "101", back: true, body: offer},
	{start: "ACK", method: "ACK", cseq: "101"},
	{start: "BYE", method: "BYE", cseq: "102"},
	{start: "200 OK", method: "BYE", cseq: "102", back: true},
}

func (s *step) append(b []byte, c *call) []byte {
	if s.back {
		b = append(append(b, "SIP/2.0 "...), s.start...)
	} else {
		b = append(append(append(append(b, s.start...), " sip:+"...), c.to...), "@198.51.100.4:5060;user=phone SIP/2.0"...)
	}
	b = append(b, "\r\nVia: SIP/2.0/UDP 192.0.2.17:5060;rport;branch=z9hG4bK-524287-1---8d1f0a2b3c4d5e6f;received=192.0.2.17"+
		"\r\nMax-Forwards: 69\r\nRecord-Route: <sip:198.51.100.4;lr;ftag=a1b2c3d4>\r\nContact: <sip:+"...)
	b = append(append(b, c.from...), "@192.0.2.17:5060;transport=udp>\r\nTo: <sip:+"...)
	b = append(append(b, c.to...), "@example.com;user=phone>"...)
	if s.back {
		b = strconv.AppendUint(append(b, ";tag=as"...), uint64(c.tag), 16)
	}
	b = append(append(append(b, "\r\nFrom: \"Alice Example\" <sip:+"...), c.from...), "@example.com;user=phone>;tag="...)
	b = strconv.AppendUint(append(b, "gK"...), uint64(c.tag), 16)
	b = append(append(b, "\r\nCall-ID: "...), c.id...)
	b = append(append(append(append(b, "\r\nCSeq: "...), s.cseq...), ' '), s.method...)
	b = append(b, "\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, UPDATE, PRACK, MESSAGE"+
		"\r\nSupported: replaces, timer, path, 100rel\r\nUser-Agent: Example-SBC 7.2.1-b4410"...)
	if s.body != "" {
		b = append(b, "\r\nContent-Type: application/sdp"...)
	}
	b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(s.body)), 10)
	return append(append(b, "\r\n\r\n"...), s.body...)
}

const offer = "v=0\r\no=- 1783902 1783902 IN IP4 192.0.2.17\r\ns=-\r\nc=IN IP4 192.0.2.17\r\nt=0 0\r\nm=audio 16384 RTP/AVP 8 0 101\r\n" +
	"a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"

// CallIDs returns the Call-IDs of the calls in progress.
func (t *Traffic) CallIDs() []string {
	ids := make([]string, len(t.calls))
	for i := range t.calls {
		ids[i] = t.calls[i].id
	}
	return ids
}
