package rules

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

func list(values ...string) []string { return values }

// TestRule_selects asks rules about the same INVITE: alice@Example.com to
// bob@[2001:db8::1], request for bob@example.com, from 192.0.2.10:5060 to
// 198.51.100.20:5062, captured by edge1, 2001.
func TestRule_selects(t *testing.T) {
	tests := []struct {
		name string
		rule trace.Rule
		want bool
	}{
		{"nothing asked", trace.Rule{}, true},
		{"caller", trace.Rule{FromUser: list("alice")}, true},
		{"caller, case counts", trace.Rule{FromUser: list("Alice")}, false},
		{"another caller", trace.Rule{FromUser: list("bob")}, false},
		{"one of many callers", trace.Rule{FromUser: list("a", "b", "c", "d", "e", "alice", "f*")}, true},
		{"one of many others", trace.Rule{FromUser: list("a", "b", "c", "d", "e", "f")}, false},
		{"beginning", trace.Rule{FromUser: list("ali*")}, true},
		{"another beginning", trace.Rule{FromUser: list("alix*")}, false},
		{"beginning longer than all", trace.Rule{FromUser: list("alice-and-more*")}, false},
		{"end", trace.Rule{FromUser: list("*ice")}, true},
		{"another end", trace.Rule{FromUser: list("*Ice")}, false},
		{"part", trace.Rule{FromUser: list("*lic*")}, true},
		{"another part", trace.Rule{FromUser: list("*lix*")}, false},
		{"anybody", trace.Rule{FromUser: list("*")}, true},
		{"beginning or end", trace.Rule{FromUser: list("bo*", "*ce")}, true},
		{"not this one", trace.Rule{FromUser: list("!alice")}, false},
		{"not another", trace.Rule{FromUser: list("!bob")}, true},
		{"beginning, but not this one", trace.Rule{FromUser: list("al*", "!alice")}, false},
		{"beginning, but not another", trace.Rule{FromUser: list("al*", "!alex")}, true},
		{"nobody", trace.Rule{FromUser: list("!*")}, false},
		{"star itself", trace.Rule{FromUser: list(`\*alice`)}, false},
		{"callee", trace.Rule{ToUser: list("bob")}, true},
		{"requested", trace.Rule{RURIUser: list("bob")}, true},
		{"caller and another callee", trace.Rule{FromUser: list("alice"), ToUser: list("carol")}, false},
		{"domain, case does not count", trace.Rule{FromDomain: list("EXAMPLE.com")}, true},
		{"end of the domain", trace.Rule{FromDomain: list("*.com")}, true},
		{"another domain", trace.Rule{RURIDomain: list("example.org")}, false},
		{"domain that is an address", trace.Rule{ToDomain: list("2001:DB8::1")}, true},
		{"the same in brackets", trace.Rule{ToDomain: list("[2001:db8::1]")}, true},
		{"method, case does not count", trace.Rule{Methods: list("register", "invite")}, true},
		{"another method", trace.Rule{Methods: list("REGISTER")}, false},
		{"any but another method", trace.Rule{Methods: list("!OPTIONS")}, true},
		{"call", trace.Rule{CallID: list("8f3c@pbx")}, true},
		{"beginning of the call", trace.Rule{CallID: list("8f3c*")}, true},
		{"another call", trace.Rule{CallID: list("8f3d*")}, false},
		{"source", trace.Rule{Src: list("192.0.2.10")}, true},
		{"source and port", trace.Rule{Src: list("192.0.2.10:5060")}, true},
		{"source and another port", trace.Rule{Src: list("192.0.2.10:5061")}, false},
		{"source network", trace.Rule{Src: list("10.0.0.0/8", "192.0.2.0/24")}, true},
		{"source network and port", trace.Rule{Src: list("192.0.2.0/24:5060")}, true},
		{"another source network", trace.Rule{Src: list("198.51.100.0/24")}, false},
		{"target", trace.Rule{Dst: list("198.51.100.0/25")}, true},
		{"target port", trace.Rule{Dst: list(":5062")}, true},
		{"another target port", trace.Rule{Dst: list(":5060")}, false},
		{"either side", trace.Rule{Addr: list("198.51.100.20")}, true},
		{"either side's port", trace.Rule{Addr: list(":5062")}, true},
		{"neither side", trace.Rule{Addr: list("203.0.113.0/24")}, false},
		{"not either side", trace.Rule{Addr: list("!198.51.100.20")}, false},
		{"not that network", trace.Rule{Addr: list("!203.0.113.0/24")}, true},
		{"network, but not that address", trace.Rule{Addr: list("192.0.2.0/24", "!192.0.2.10")}, false},
		{"IPv6", trace.Rule{Src: list("2001:db8::/32")}, false},
		{"every IPv4 address", trace.Rule{Src: list("0.0.0.0/0")}, true},
		{"agent", trace.Rule{Agents: list("edge1")}, true},
		{"capture id", trace.Rule{Agents: list("2001")}, true},
		{"another agent", trace.Rule{Agents: list("edge2", "2002")}, false},
		{"any but that capture id", trace.Rule{Agents: list("!2001")}, false},
		{"header field", trace.Rule{Headers: map[string][]string{"User-Agent": list("phone/1.0")}}, true},
		{"header field, case of the name does not count", trace.Rule{Headers: map[string][]string{"user-agent": list("phone*")}}, true},
		{"header field, case of the value does", trace.Rule{Headers: map[string][]string{"User-Agent": list("Phone*")}}, false},
		{"part of a header field", trace.Rule{Headers: map[string][]string{"User-Agent": list("*hone/*")}}, true},
		{"any field of a name", trace.Rule{Headers: map[string][]string{"X-Tenant": list("second")}}, true},
		{"compact field by its name in full", trace.Rule{Headers: map[string][]string{"Subject": list("hello world")}}, true},
		{"field that is not there", trace.Rule{Headers: map[string][]string{"X-Missing": list("*")}}, false},
		{"field that must not be there", trace.Rule{Headers: map[string][]string{"X-Missing": list("!*")}}, true},
		{"field that must not be so", trace.Rule{Headers: map[string][]string{"X-Tenant": list("!first")}}, false},
		{"two fields", trace.Rule{Headers: map[string][]string{"X-Tenant": list("first"), "User-Agent": list("phone*")}}, true},
		{"two fields, one wrong", trace.Rule{Headers: map[string][]string{"X-Tenant": list("first"), "User-Agent": list("fax*")}}, false},
		{"expression", trace.Rule{When: `method == "INVITE" && status == 0 && src_port == 5060`}, true},
		{"expression on users and hosts", trace.Rule{When: `from_user + "@" + from_host == "alice@example.com" && to_host == "2001:db8::1"`}, true},
		{"expression on a header field", trace.Rule{When: `header("X-Tenant") == "first" && header("subject").startsWith("hello")`}, true},
		{"expression on a header field that is not there", trace.Rule{When: `header("X-Missing") == ""`}, true},
		{"expression with a pattern", trace.Rule{When: `user_agent.matches("^phone/[0-9]")`}, true},
		{"expression on the event", trace.Rule{When: `transport == "udp" && agent == "edge1" && agent_id == 2001 && dst_ip == "198.51.100.20" && direction == ""`}, true},
		{"expression that says no", trace.Rule{When: `body_len > 0`}, false},
		{"expression without an answer", trace.Rule{When: `10 / status > 0`}, false},
		{"selector and expression", trace.Rule{FromUser: list("bob"), When: `true`}, false},
	}
	invite := call{"8f3c@pbx", "alice", "bob"}.message("INVITE", 0, "X-Tenant: first", "X-Tenant: second", "s: hello\r\n world")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := selects(newTestEngine(t, Options{}, tt.rule), invite); got != tt.want {
				t.Errorf("selected: %v, want %v", got, tt.want)
			}
			// The same among others, so that it is found by whatever it is looked up by.
			among := []trace.Rule{{FromUser: list("x")}, {Src: list("10.0.0.0/8")}, {CallID: list("x*")}, tt.rule, {Headers: map[string][]string{"X-Y": list("z")}}}
			if got := selects(newTestEngine(t, Options{}, among...), invite); got != tt.want {
				t.Errorf("selected among others: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRule_readsUsersAsTheyAreMeant(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("*97", `!*897`, `\*98`)})
	for user, want := range map[string]bool{"1197": true, "%31%397": true, "897": false, "*98": true, "98": false, "%2A98": true, "%98": false, "%zz97": true} {
		if got := selects(en, call{user + "@x", user, "bob"}.message("INVITE", 0)); got != want {
			t.Errorf("user %s selected: %v, want %v", user, got, want)
		}
	}
	tel := call{"t", "alice", "bob"}.message("INVITE", 0)
	tel.Payload = []byte(strings.Replace(string(tel.Payload), "sip:alice@Example.com", "tel:+49-30-1", 1))
	if !selects(newTestEngine(t, Options{}, trace.Rule{FromUser: list("+49*")}), tel) {
		t.Error("the number of a tel URI is no user")
	}
}

func TestRule_asksWhatIsNoSIPOnlyForWhatItHas(t *testing.T) {
	log := trace.Event{Type: trace.TypeLog, Payload: []byte("INVITE sip:a@b SIP/2.0"), Src: netip.MustParseAddrPort("192.0.2.1:5060"), CorrelationID: []byte("a@b")}
	tests := []struct {
		rule trace.Rule
		want bool
	}{
		{trace.Rule{Src: list("192.0.2.1")}, true},
		{trace.Rule{CallID: list("a@b")}, true},
		{trace.Rule{Methods: list("INVITE")}, false},
		{trace.Rule{Headers: map[string][]string{"Via": list("!x")}}, true},
		{trace.Rule{Headers: map[string][]string{"Via": list("*")}}, false},
		{trace.Rule{When: `method == "" && status == 0 && from_host == "" && user_agent == "" && header("Via") == "" && body_len == 0 && content_type == ""`}, true},
	}
	for _, tt := range tests {
		en := newTestEngine(t, Options{}, tt.rule)
		e := log.Clone()
		if got := en.Explain(&e, &sipmsg.Message{}, false).Passed; got != tt.want {
			t.Errorf("%+v: selected %v, want %v", tt.rule, got, tt.want)
		}
	}
}

func TestRule_sampleTakesWholeCallsAlikeEverywhere(t *testing.T) {
	rule := trace.Rule{Sample: 10, Scope: trace.ScopeMessage}
	one, other := newTestEngine(t, Options{}, rule), newTestEngine(t, Options{}, rule)
	const calls = 5000
	taken := 0
	for i := range calls {
		c := call{strings.Repeat("x", i%7) + string(rune('a'+i%26)) + "-" + netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}).String(), "alice", "bob"}
		got := selects(one, c.message("INVITE", 0))
		if selects(other, c.message("BYE", 200)) != got {
			t.Fatalf("call %s is taken by one tap and left by another", c.id)
		}
		if got {
			taken++
		}
	}
	if taken < calls/10*8/10 || taken > calls/10*12/10 {
		t.Errorf("%d of %d calls taken, want about a tenth", taken, calls)
	}
}

func TestEngine_countsExpressionsWithoutAnswer(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{Name: "r", When: `10 / status > 0`})
	ask(en, call{"a", "alice", "bob"}.message("INVITE", 0))
	if st := en.Status()[0]; st.Failed != 1 || st.Matched != 0 {
		t.Errorf("status %+v, want 1 failed", st)
	}
}
