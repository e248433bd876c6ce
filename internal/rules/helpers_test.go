package rules

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A call is a call between two users, message by message.
type call struct {
	id, from, to string
}

const (
	alicesPhone = "192.0.2.10:5060"
	bobsPhone   = "198.51.100.20:5062"
)

// inside reports whether a request is one within a dialog.
func inside(method string) bool {
	return method == "BYE" || method == "ACK" || method == "INFO" || method == "REFER"
}

// message is one message of the call. The CSeq names the method; a status makes it a reply.
func (c call) message(method string, status int, extra ...string) trace.Event {
	start := fmt.Sprintf("%s sip:%s@example.com SIP/2.0", method, c.to)
	src, dst := alicesPhone, bobsPhone
	if status > 0 {
		start = fmt.Sprintf("SIP/2.0 %d Reason", status)
		src, dst = dst, src
	}
	tag := ""
	if status > 100 || inside(method) {
		tag = ";tag=t"
	}
	text := start + "\r\nVia: SIP/2.0/UDP " + src + ";branch=z9hG4bK1\r\n" +
		fmt.Sprintf("From: \"A\" <sip:%s@Example.com>;tag=f\r\nTo: <sip:%s@[2001:db8::1]>%s\r\n", c.from, c.to, tag)
	if c.id != "" {
		text += "Call-ID: " + c.id + "\r\n"
	}
	text += "CSeq: 1 " + method + "\r\nUser-Agent: phone/1.0\r\n"
	for _, line := range extra {
		text += line + "\r\n"
	}
	return trace.Event{
		Time: time.Unix(1_800_000_000, 0), Type: trace.TypeSIP, Transport: trace.UDP,
		Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst),
		Agent: trace.Agent{ID: 2001, Name: "edge1"}, Payload: []byte(text + "\r\n"),
	}
}

// back turns a message round: the callee sends it to the caller, so that it is
// of a dialog.
func back(e trace.Event) trace.Event {
	e.Src, e.Dst = e.Dst, e.Src
	if !strings.Contains(string(e.Payload), ";tag=t\r\n") {
		e.Payload = []byte(strings.Replace(string(e.Payload), "::1]>\r\n", "::1]>;tag=t\r\n", 1))
	}
	e.Payload = []byte(strings.NewReplacer("From:", "T-o:", "To:", "From:").Replace(string(e.Payload)))
	e.Payload = []byte(strings.Replace(string(e.Payload), "T-o:", "To:", 1))
	return e
}

func newTestEngine(t testing.TB, o Options, list ...trace.Rule) *Engine {
	t.Helper()
	en, err := NewEngine(o, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	use(t, en, list...)
	return en
}

// use gives the engine rules, all of which must be good.
func use(t testing.TB, en *Engine, list ...trace.Rule) {
	t.Helper()
	var given []Given
	for i, r := range list {
		if r.Name == "" {
			r.Name = fmt.Sprintf("rule%d", i)
		}
		given = append(given, Given{Rule: r, Revision: uint64(i + 1)})
	}
	en.Use(given)
	for _, st := range en.Status() {
		if st.Err != nil {
			t.Fatalf("rule %s: %v", st.Name, st.Err)
		}
	}
}

// ask decides about one message while the global state is off.
func ask(en *Engine, e trace.Event) (trace.Event, Decision) {
	var m sipmsg.Message
	sipmsg.Scan(&m, e.Payload)
	d := en.Explain(&e, &m, false)
	return e, d
}

func selects(en *Engine, e trace.Event) bool {
	_, d := ask(en, e)
	return d.Passed
}
