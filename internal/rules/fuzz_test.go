package rules

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// FuzzDecide asks rules with any values about any message. However the rules
// are found, the answer is that of asking each of them.
func FuzzDecide(f *testing.F) {
	invite := call{"1@a", "alice", "bob"}.message("INVITE", 0, "X-Tenant: acme", "s: a\r\n b")
	for _, seed := range []struct{ value, address, header, when string }{
		{"alice", "192.0.2.0/24", "X-Tenant", `method == "INVITE"`},
		{"al*", "!198.51.100.20:5062", "Subject", `header("Subject") == "a b"`},
		{"!*ic*", ":5060", "From", `user_agent.matches("^p") || 1 / status > 0`},
		{`\*97`, "[2001:db8::/32]:5060", "Via", `from_user + to_user == call_id`},
	} {
		f.Add(invite.Payload, seed.value, seed.address, seed.header, seed.when)
		f.Add([]byte("SIP/2.0 200 OK\r\nFrom: <sip:%61@x\r\n;tag=\r\n\r\n"), seed.value, seed.address, seed.header, seed.when)
	}
	compiler := compiler(f)
	f.Fuzz(func(t *testing.T, payload []byte, value, address, header, when string) {
		v := list(value)
		var given []Given
		for i, r := range []trace.Rule{
			{FromUser: v}, {ToUser: v, Methods: list("INVITE")}, {RURIUser: v}, {FromDomain: v}, {CallID: v}, {Methods: v}, {Agents: v},
			{Src: list(address)}, {Dst: list(address), FromUser: v}, {Addr: list(address)},
			{Headers: map[string][]string{header: v}}, {Headers: map[string][]string{header: v, "Via": list("*")}, Addr: list(address)},
			{When: when}, {FromUser: list("!" + value), Sample: 50},
		} {
			r.Name = string(rune('a' + i))
			if _, err := compiler.Compile(r, 0); err == nil {
				given = append(given, Given{Rule: r, Revision: 1})
			}
		}
		en := &Engine{compiler: compiler, started: time.Now(), set: &Set{}, dialogs: newDialogs(3, time.Hour)}
		var err error
		if en.metrics, err = newMetrics(prometheus.NewRegistry(), en); err != nil {
			t.Fatal(err)
		}
		en.Use(given)
		compare(t, en, payload)
	})
}

// compare decides about a message twice, and about one that is no SIP.
func compare(t *testing.T, en *Engine, payload []byte) {
	t.Helper()
	e := trace.Event{
		Type: trace.TypeSIP, Payload: payload, Agent: trace.Agent{ID: 7, Name: "alice"},
		Src: netip.MustParseAddrPort("192.0.2.10:5060"), Dst: netip.MustParseAddrPort("[2001:db8::1]:5062"),
	}
	var m sipmsg.Message
	sipmsg.Scan(&m, payload)
	for range 2 {
		one := e
		en.Explain(&one, &m, false)
		for i, r := range en.set.rules {
			if want := alone(en, r, i); en.hit.has(i) != want && !en.set.parties.has(i) {
				t.Errorf("rule %+v: found %v, asked alone %v\n%q", r.Rule, en.hit.has(i), want, payload)
			}
		}
	}
	log := trace.Event{Type: trace.TypeLog, Payload: payload, CorrelationID: payload}
	en.Explain(&log, nil, true)
	if log.Agent != (trace.Agent{}) || len(log.Payload) != len(payload) {
		t.Error("more than the routing was changed")
	}
}

// alone asks one rule about the message that was decided last.
func alone(en *Engine, r *Rule, i int) bool {
	for _, check := range r.checks {
		if !check(&en.m) {
			return false
		}
	}
	for n := range r.headers {
		if !en.m.header(&en.set.headers, en.set.first[i]+n) {
			return false
		}
	}
	if !r.permits(&en.m) || r.share < 1 && en.m.share() >= r.share {
		return false
	}
	if r.when == nil {
		return true
	}
	yes, err := en.m.evaluate(r.when)
	return err == nil && yes
}

// FuzzCompile reads expressions and values of any kind. What is refused is
// refused with the field; what is not can be asked.
func FuzzCompile(f *testing.F) {
	for _, tt := range hostile() {
		f.Add(tt.rule.When, tt.rule.Table, "sip:h")
	}
	c := compiler(f)
	e := call{"1@a", "alice", "bob"}.message("INVITE", 0)
	var scan sipmsg.Message
	sipmsg.Scan(&scan, e.Payload)
	var m message
	m.load(&e, &scan, &Set{})
	f.Fuzz(func(t *testing.T, when, table, destination string) {
		r, err := c.Compile(trace.Rule{Name: "r", When: when, Table: table, Destinations: list(destination)}, 0)
		var field *FieldError
		if err != nil && !errors.As(err, &field) {
			t.Errorf("error without a field: %v", err)
		}
		if err == nil && r.when != nil {
			_, _ = m.evaluate(r.when) // no answer is an answer
		}
	})
}
