package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// phone is a SIP phone that does as the test tells it.
type phone struct {
	t    *testing.T
	conn *net.UDPConn
	addr netip.AddrPort
}

func newPhone(t *testing.T) *phone {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &phone{t, c, c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

func (p *phone) send(to netip.AddrPort, message string) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort([]byte(message), to); err != nil {
		p.t.Fatal(err)
	}
}

// receive returns the next message that begins like that.
func (p *phone) receive(start string) string {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 65535); ; {
		n, _, err := p.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			p.t.Fatalf("waiting for %q: %v", start, err)
		}
		if strings.HasPrefix(string(b[:n]), start) {
			return string(b[:n])
		}
	}
}

// request is a request of the phone's. More are header lines.
func (p *phone) request(method, uri string, cseq int, more ...string) string {
	branch := method
	if method == "CANCEL" {
		branch = "INVITE" // that of what it cancels
	}
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d\r\n%s"+
		"From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\nCall-ID: call\r\nCSeq: %d %s\r\nContent-Length: 0\r\n\r\n",
		method, uri, p.addr, branch, cseq, strings.Join(append(more, ""), "\r\n"), cseq, method)
}

// respond answers a request.
func respond(request, status string) string {
	header := request[strings.Index(request, "\r\n"):]
	if !strings.HasPrefix(status, "100") {
		header = strings.Replace(header, "To: <sip:bob@example.com>\r\n", "To: <sip:bob@example.com>;tag=b\r\n", 1)
	}
	return "SIP/2.0 " + status + header
}

// field is the value of a header field.
func field(message, name string) string {
	var m sipmsg.Message
	sipmsg.Scan(&m, []byte(message))
	v, _ := m.Header([]byte(message), name)
	return string(bytes.TrimSpace(v))
}

// bed is a proxy between two phones.
func bed(t *testing.T) (proxy netip.AddrPort, caller, callee *phone, stop func() report) {
	t.Helper()
	proxy, caller, callee = freePort(t), newPhone(t), newPhone(t)
	return proxy, caller, callee, start(t, options{listen: proxy.String(), to: callee.addr.String()})
}

func TestProxy_staysInTheDialog(t *testing.T) {
	proxy, caller, callee, _ := bed(t)
	caller.send(proxy, caller.request("INVITE", "sip:bob@example.com", 1, "Max-Forwards: 70"))
	caller.receive("SIP/2.0 100")
	invite := callee.receive("INVITE")
	if got := field(invite, "Max-Forwards"); got != "69" {
		t.Errorf("Max-Forwards %s, want 69", got)
	}
	if n := strings.Count(invite, "\r\nVia: "); n != 2 || !strings.Contains(field(invite, "Via"), proxy.String()) {
		t.Errorf("%d Vias, the first %q; want the proxy's before the caller's", n, field(invite, "Via"))
	}
	route := field(invite, "Record-Route")
	if !strings.Contains(route, proxy.String()) || !strings.Contains(route, ";lr") {
		t.Errorf("Record-Route %q, want the proxy's", route)
	}
	callee.send(proxy, respond(invite, "180 Ringing"))
	caller.receive("SIP/2.0 180")
	callee.send(proxy, respond(invite, "200 OK"))
	ok := caller.receive("SIP/2.0 200")
	if n := strings.Count(ok, "\r\nVia: "); n != 1 {
		t.Errorf("200 with %d Vias, want the caller's", n)
	}
	callee.send(proxy, respond(invite, "200 OK")) // no ACK has come yet
	caller.receive("SIP/2.0 200")
	contact := "sip:bob@" + callee.addr.String()
	caller.send(proxy, caller.request("ACK", contact, 1, "Route: "+route))
	if ack := callee.receive("ACK"); field(ack, "Route") != "" || !strings.HasPrefix(ack, "ACK "+contact) {
		t.Errorf("ACK %q, want the callee's URI and no Route", ack)
	}
	caller.send(proxy, caller.request("BYE", contact, 2, "Route: "+route))
	callee.send(proxy, respond(callee.receive("BYE"), "200 OK"))
	caller.receive("SIP/2.0 200")
}

func TestProxy_cancels(t *testing.T) {
	proxy, caller, callee, _ := bed(t)
	caller.send(proxy, caller.request("INVITE", "sip:bob@example.com", 1))
	invite := callee.receive("INVITE")
	callee.send(proxy, respond(invite, "180 Ringing"))
	caller.receive("SIP/2.0 180")
	caller.send(proxy, caller.request("CANCEL", "sip:bob@example.com", 1))
	cancel := callee.receive("CANCEL")
	if field(cancel, "Via") != field(invite, "Via") || field(cancel, "CSeq") != "1 CANCEL" {
		t.Errorf("CANCEL with Via %q and CSeq %q, want those of the INVITE", field(cancel, "Via"), field(cancel, "CSeq"))
	}
	callee.send(proxy, respond(cancel, "200 OK"))
	callee.send(proxy, respond(invite, "487 Request Terminated"))
	callee.receive("ACK")
	caller.receive("SIP/2.0 487")
}

func TestProxy_aCallThatIsAnsweredWhileItIsCancelledIsTold(t *testing.T) {
	proxy, caller, callee, _ := bed(t)
	caller.send(proxy, caller.request("INVITE", "sip:bob@example.com", 1))
	invite := callee.receive("INVITE")
	callee.send(proxy, respond(invite, "180 Ringing"))
	caller.receive("SIP/2.0 180")
	caller.send(proxy, caller.request("CANCEL", "sip:bob@example.com", 1))
	caller.receive("SIP/2.0 487")
	callee.send(proxy, respond(callee.receive("CANCEL"), "200 OK"))
	callee.send(proxy, respond(invite, "200 OK"))
	for field(caller.receive("SIP/2.0 200"), "CSeq") != "1 INVITE" {
	}
}

func TestProxy_refuses(t *testing.T) {
	proxy, caller, callee, stop := bed(t)
	caller.send(proxy, caller.request("OPTIONS", "sip:bob@example.com", 1, "Max-Forwards: 0"))
	caller.receive("SIP/2.0 483")
	caller.send(proxy, caller.request("CANCEL", "sip:bob@example.com", 7))
	caller.receive("SIP/2.0 481")
	caller.send(proxy, caller.request("INVITE", "sip:bob@example.com", 2))
	invite := callee.receive("INVITE")
	callee.send(proxy, respond(invite, "486 Busy Here"))
	callee.receive("ACK")
	caller.receive("SIP/2.0 486")
	if r := stop(); r.Messages["out 481 CANCEL"] != 1 || r.Messages["out 486 INVITE"] != 1 || r.Tap.Seen != 0 {
		t.Errorf("%+v, want one 481, one 486, and no tracing", r)
	}
}
