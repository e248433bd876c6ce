package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// An invite is a message of our own making: the serial tells it from others.
func invite(serial int) hep.Packet {
	p := hep.Packet{
		Version: 3, Protocol: hep.ProtocolUDP, Type: hep.TypeSIP, CaptureID: 7, Node: []byte("tester"),
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.2"), SrcPort: 5060, DstPort: 5060,
		Payload: fmt.Appendf(nil, "INVITE sip:bob-%[1]d@example.org SIP/2.0\r\n"+
			"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%[1]d\r\nMax-Forwards: 70\r\n"+
			"From: \"Alice\" <sip:alice@example.com>;tag=%[1]d\r\nTo: <sip:bob-%[1]d@example.org>\r\n"+
			"Call-ID: %[1]d@192.0.2.1\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@192.0.2.1:5060>\r\n"+
			"Content-Length: 0\r\n\r\n", serial),
	}
	if err := p.SetTime(time.Now()); err != nil {
		panic(err) // until 2106 there is no such time
	}
	return p
}

// idOf is the id of the event that a packet becomes.
func idOf(p *hep.Packet) string {
	var e trace.Event
	trace.FromHEP(&e, p, new(trace.Names))
	e.Identify()
	return e.ID.String()
}

// A sender sends HEP to a tap.
type sender struct {
	t    *testing.T
	conn net.Conn
	sent map[string]bool // ids
	next int             // serial
}

// send connects to a tap: "udp" or "tcp".
func send(t *testing.T, network, addr string) *sender {
	t.Helper()
	s := &sender{t: t, sent: make(map[string]bool)}
	s.dial(network, addr)
	return s
}

func (s *sender) dial(network, addr string) {
	s.t.Helper()
	conn, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	s.conn = conn
}

// invites sends n messages that were never sent before.
func (s *sender) invites(n int) {
	s.t.Helper()
	for range n {
		s.next++
		p := invite(s.next)
		s.packet(&p)
	}
}

// packet sends a packet.
func (s *sender) packet(p *hep.Packet) {
	s.t.Helper()
	b, err := p.Append(nil)
	if err != nil {
		s.t.Error(err)
	}
	s.bytes(b)
	s.sent[idOf(p)] = true
}

// bytes sends what need not be HEP. It may be called from any goroutine.
func (s *sender) bytes(b []byte) {
	s.t.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.t.Error(err)
	}
}

// once fails the test unless exactly what was sent is stored, each once.
func (s *sender) once(d *db) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d events are stored", len(s.sent)), func() bool { return d.count(s.t) >= len(s.sent) })
	times := make(map[string]int)
	for _, r := range d.rows(s.t) {
		times[r.ID]++
	}
	var missing, strange, twice []string
	for id := range s.sent {
		if times[id] == 0 {
			missing = append(missing, id)
		}
	}
	for id, n := range times {
		if !s.sent[id] {
			strange = append(strange, id)
		}
		if n > 1 {
			twice = append(twice, id)
		}
	}
	if len(missing)+len(strange)+len(twice) > 0 {
		s.t.Errorf("of %d events sent %d are missing, %d stored more than once; %d stored that were not sent: %s",
			len(s.sent), len(missing), len(twice), len(strange), strings.Join(append(append(missing, twice...), strange...)[:1], ""))
	}
}
