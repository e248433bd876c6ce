package rules

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// whole is a call from INVITE to BYE and what answers it, with a re-INVITE
// and a CANCEL in between.
func (c call) whole() []trace.Event {
	return []trace.Event{
		c.message("INVITE", 0), c.message("INVITE", 100), c.message("INVITE", 180), c.message("INVITE", 200), c.message("ACK", 0),
		back(c.message("INVITE", 0)), back(c.message("INVITE", 491)), back(c.message("ACK", 0)),
		c.message("INVITE", 0), c.message("CANCEL", 0), c.message("CANCEL", 200), c.message("INVITE", 487), c.message("ACK", 0),
		back(c.message("BYE", 0)), back(c.message("BYE", 200)),
	}
}

func TestEngine_followsTheWholeCallAndNothingElse(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{Name: "r", FromUser: list("alice"), Table: "sip_trace_alice", Users: list("alice")})
	wanted, other := call{"1@a", "alice", "bob"}.whole(), call{"2@a", "carol", "alice"}.whole()
	for i := range wanted {
		if _, d := ask(en, other[i]); d.Passed {
			t.Errorf("message %d of another call passes", i)
		}
		e, d := ask(en, wanted[i])
		if !d.Passed || e.Table != "sip_trace_alice" || e.Rule != "r" || !slices.Equal(e.TracedUsers, list("alice")) || !e.Flags.Has(trace.UsersOnly) {
			t.Errorf("message %d: passed %v as %+v", i, d.Passed, e)
		}
	}
}

func TestEngine_takesUpCallsAtTheirBeginning(t *testing.T) {
	rules := []trace.Rule{{Name: "caller", FromUser: list("alice")}, {Name: "hangs-up", FromUser: list("alice"), Methods: list("BYE")}, {Name: "id", CallID: list("1@a")}}
	tests := []struct {
		name string
		rule trace.Rule
		want int // of the messages of a call from carol to alice
	}{
		{"the caller is not the one who hangs up", rules[0], 0},
		{"not even where the calls of an agent are asked for", trace.Rule{FromUser: list("alice"), Agents: list("edge1")}, 0},
		{"unless that is asked for", rules[1], 2},
		{"a Call-ID is followed from anywhere", rules[2], 15},
		{"so is an address", trace.Rule{Src: list(bobsPhone), Methods: list("BYE")}, 2},
		{"and for messages alone From is From", trace.Rule{FromUser: list("alice"), Scope: trace.ScopeMessage}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			en := newTestEngine(t, Options{}, tt.rule)
			got := 0
			for _, e := range (call{"1@a", "carol", "alice"}).whole() {
				if selects(en, e) {
					got++
				}
			}
			if got != tt.want {
				t.Errorf("%d messages selected, want %d", got, tt.want)
			}
		})
	}
}

func TestEngine_aRuleForOneSideDoesNotBarAnother(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{Name: "caller", FromUser: list("alice")}, trace.Rule{Name: "callee", ToUser: list("alice")})
	for i, e := range (call{"1@a", "carol", "alice"}).whole() {
		if e, d := ask(en, e); !d.Passed || e.Rule != "callee" || len(d.Rules) != 1 {
			t.Errorf("message %d: passed %v, rules %v; want callee alone", i, d.Passed, d.Rules)
		}
	}
}

func TestEngine_scopeMessageTakesNoMore(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice"), Methods: list("INVITE"), Scope: trace.ScopeMessage})
	c := call{"1@a", "alice", "bob"}
	for _, tt := range []struct {
		e    trace.Event
		want bool
	}{
		{c.message("INVITE", 0), true}, {c.message("INVITE", 200), true}, {c.message("ACK", 0), false}, {back(c.message("BYE", 0)), false},
	} {
		if got := selects(en, tt.e); got != tt.want {
			t.Errorf("%.20s selected: %v, want %v", tt.e.Payload, got, tt.want)
		}
	}
	if n := en.dialogs.len(); n != 0 {
		t.Errorf("%d calls are followed, want none", n)
	}
}

func TestEngine_logsFollowTheirCall(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice")})
	log := trace.Event{Type: trace.TypeLog, CorrelationID: []byte("1@a"), Payload: []byte("no route")}
	if en.Explain(&log, nil, false).Passed {
		t.Error("a log passes before its call")
	}
	ask(en, call{"1@a", "alice", "bob"}.message("INVITE", 0))
	if !en.Explain(&log, nil, false).Passed {
		t.Error("a log does not follow its call")
	}
}

func TestEngine_agentsBoundWhatFollows(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice"), Agents: list("edge1")})
	c := call{"1@a", "alice", "bob"}
	ask(en, c.message("INVITE", 0))
	elsewhere := back(c.message("BYE", 0))
	elsewhere.Agent.Name = "edge2"
	if selects(en, elsewhere) {
		t.Error("a message of another agent follows")
	}
	if !selects(en, back(c.message("BYE", 0))) {
		t.Error("a message of the agent does not follow")
	}
}

func TestEngine_route(t *testing.T) {
	alice := list("alice")
	tests := []struct {
		name  string
		rules []trace.Rule
		all   bool
		want  trace.Event // its routing
		drop  bool
		out   bool // unselected
	}{
		{"nothing matches, all on", []trace.Rule{{FromUser: list("x")}}, true, trace.Event{}, false, false},
		{"nothing matches, off", []trace.Rule{{FromUser: list("x")}}, false, trace.Event{}, false, true},
		{"a rule without users gives the row without one", []trace.Rule{{FromUser: alice}}, false, trace.Event{Rule: "rule0"}, false, false},
		{"a rule with users gives theirs alone", []trace.Rule{{FromUser: alice, Users: list("u")}}, false,
			trace.Event{Rule: "rule0", TracedUsers: list("u"), Flags: trace.UsersOnly}, false, false},
		{"and all on gives both", []trace.Rule{{FromUser: alice, Users: list("u")}}, true,
			trace.Event{Rule: "rule0", TracedUsers: list("u")}, false, false},
		{"so do two rules", []trace.Rule{{FromUser: alice, Users: list("u")}, {FromUser: alice}}, false,
			trace.Event{Rule: "rule0", TracedUsers: list("u")}, false, false},
		{"users are united", []trace.Rule{{FromUser: alice, Users: list("u", "v")}, {ToUser: list("bob"), Users: list("v", "w")}}, false,
			trace.Event{Rule: "rule0", TracedUsers: list("u", "v", "w"), Flags: trace.UsersOnly}, false, false},
		{"users from the message", []trace.Rule{{FromUser: alice, UsersFrom: list("to", "from", "ruri")}}, false,
			trace.Event{Rule: "rule0", TracedUsers: list("bob", "alice"), Flags: trace.UsersOnly}, false, false},
		{"the same of one message", []trace.Rule{{FromUser: alice, UsersFrom: list("from"), Users: list("u"), Scope: trace.ScopeMessage}}, false,
			trace.Event{Rule: "rule0", TracedUsers: list("u", "alice"), Flags: trace.UsersOnly}, false, false},
		{"destinations are united", []trace.Rule{{FromUser: alice, Destinations: list("sip:a")}, {FromUser: alice, Destinations: list("sip:b", "sip:a")}}, false,
			trace.Event{Rule: "rule0", Destinations: list("sip:a", "sip:b")}, false, false},
		{"the first table wins, by name", []trace.Rule{{Name: "b", FromUser: alice, Table: "second"}, {Name: "a", FromUser: alice, Table: "first"}}, false,
			trace.Event{Rule: "a", Table: "first"}, false, false},
		{"flags add up", []trace.Rule{{FromUser: alice, NoStore: true}, {FromUser: alice, NoDuplicate: true}}, true,
			trace.Event{Rule: "rule0", Flags: trace.NoStore | trace.NoDuplicate}, false, false},
		{"any drop drops", []trace.Rule{{FromUser: alice, Table: "x"}, {ToUser: list("bob"), Drop: true}}, true, trace.Event{}, true, false},
		{"a drop alone selects nothing", []trace.Rule{{FromUser: alice, Drop: true}}, false, trace.Event{}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			en := newTestEngine(t, Options{}, tt.rules...)
			events := []trace.Event{call{"1@a", "alice", "bob"}.message("INVITE", 0)}
			scans := make([]sipmsg.Message, 1)
			sipmsg.Scan(&scans[0], events[0].Payload)
			out := en.Decide(events, scans, tt.all)
			if got, want := out, (Outcome{Passed: bit(!tt.drop && !tt.out), Dropped: bit(tt.drop)}); got != want {
				t.Fatalf("outcome %+v, want %+v", got, want)
			}
			if tt.drop {
				return
			}
			e := events[0]
			got := trace.Event{Rule: e.Rule, Table: e.Table, TracedUsers: e.TracedUsers, Destinations: e.Destinations, Flags: e.Flags}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("routing\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func TestEngine_saysWhatBecomesOfEachEvent(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice"), Scope: trace.ScopeMessage}, trace.Rule{FromUser: list("eve"), Drop: true})
	var events []trace.Event
	for i, from := range []string{"x", "alice", "eve", "y", "alice", "alice"} {
		events = append(events, call{fmt.Sprint(i), from, "bob"}.message("INVITE", 0))
	}
	scans := make([]sipmsg.Message, len(events))
	for i := range events {
		sipmsg.Scan(&scans[i], events[i].Payload)
	}
	if got, want := en.Decide(events, scans, false), (Outcome{Passed: 0b110010, Dropped: 0b000100}); got != want {
		t.Errorf("outcome %+v, want %+v", got, want)
	}
	if got, want := en.Decide(events, scans, true), (Outcome{Passed: 0b111011, Dropped: 0b000100}); got != want {
		t.Errorf("with all on: outcome %+v, want %+v", got, want)
	}
}

func TestEngine_usersStayThoseOfTheFirstMessage(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice"), UsersFrom: list("from")})
	for i, e := range (call{"1@a", "alice", "bob"}).whole() {
		if e, _ := ask(en, e); !slices.Equal(e.TracedUsers, list("alice")) {
			t.Errorf("message %d is for %v, want alice", i, e.TracedUsers)
		}
	}
}

func TestEngine_aMessageWithoutTheUserIsKeptWithoutOne(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{Methods: list("INVITE"), UsersFrom: list("ruri"), Scope: trace.ScopeMessage})
	e, d := ask(en, call{"1@a", "alice", "bob"}.message("INVITE", 200)) // a reply has no request URI
	if !d.Passed || e.Flags.Has(trace.UsersOnly) || len(e.TracedUsers) > 0 {
		t.Errorf("passed %v with flags %v and users %v, want the row without a user", d.Passed, e.Flags, e.TracedUsers)
	}
}

func TestEngine_addsToWhatTheSourceHasSet(t *testing.T) {
	en := newTestEngine(t, Options{}, trace.Rule{FromUser: list("alice"), Users: list("u"), Table: "rules", Destinations: list("sip:a")})
	e := call{"1@a", "alice", "bob"}.message("INVITE", 0)
	given := append(make([]string, 0, 8), "s")
	e.TracedUsers, e.Table, e.Rule = given, "source", "code"
	e, _ = ask(en, e)
	if !slices.Equal(e.TracedUsers, list("s", "u")) || e.Table != "source" || e.Rule != "code" {
		t.Errorf("routing %+v", e)
	}
	if given[:2][1] != "" {
		t.Error("the source's own list was written to")
	}
}

func TestEngine_boundsWhatRulesDoTogether(t *testing.T) {
	var all []trace.Rule
	for i := range 4 {
		r := trace.Rule{FromUser: list("alice")}
		for j := range maxDestinations {
			r.Users = append(r.Users, fmt.Sprintf("u%d-%d", i, j))
			r.Destinations = append(r.Destinations, fmt.Sprintf("sip:h%d-%d", i, j))
		}
		all = append(all, r)
	}
	e, _ := ask(newTestEngine(t, Options{}, all...), call{"1@a", "alice", "bob"}.message("INVITE", 0))
	if len(e.TracedUsers) != maxUsers || len(e.Destinations) != maxDestinations {
		t.Errorf("%d users and %d destinations, want %d and %d", len(e.TracedUsers), len(e.Destinations), maxUsers, maxDestinations)
	}
	if _, err := trace.AppendEvent(nil, &e); err != nil {
		t.Errorf("the event does not fit into a packet: %v", err)
	}
}

func TestEngine_rulesExpireByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		en := newTestEngine(t, Options{},
			trace.Rule{Name: "short", FromUser: list("alice"), Expires: time.Now().Add(time.Minute)},
			trace.Rule{Name: "long", FromUser: list("carol"), Expires: time.Now().Add(time.Hour)})
		alice, carol := call{"1@a", "alice", "bob"}, call{"2@a", "carol", "bob"}
		if !selects(en, alice.message("INVITE", 0)) || !selects(en, carol.message("INVITE", 0)) {
			t.Fatal("a rule does not select")
		}
		time.Sleep(time.Minute)
		if selects(en, alice.message("BYE", 0)) || selects(en, call{"3@a", "alice", "bob"}.message("INVITE", 0)) {
			t.Error("a rule selects after its time")
		}
		if !selects(en, carol.message("BYE", 0)) {
			t.Error("the other rule has ended, too")
		}
		if st := en.Status(); len(st) != 1 || st[0].Name != "long" {
			t.Errorf("status %+v, want the rule that is left", st)
		}
		if n := en.dialogs.len(); n != 1 {
			t.Errorf("%d calls are followed, want 1", n)
		}
		time.Sleep(time.Hour)
		selects(en, carol.message("BYE", 200))
		if en.Active() || en.dialogs.len() != 0 {
			t.Error("still active without a rule")
		}
	})
}

func TestEngine_aRuleEndsAfterItsEvents(t *testing.T) {
	rule := trace.Rule{Name: "r", FromUser: list("alice"), MaxEvents: 3}
	en := newTestEngine(t, Options{}, rule)
	passed := 0
	for _, e := range (call{"1@a", "alice", "bob"}).whole() {
		if selects(en, e) {
			passed++
		}
	}
	if st := en.Status(); passed != 3 || len(st) != 1 || !st[0].Ended || st[0].Matched != 3 || en.Active() {
		t.Errorf("%d passed, status %+v; want 3 and the end", passed, st)
	}
	en.Use([]Given{{Rule: rule, Revision: 1}})
	if en.Active() {
		t.Error("the same revision counts anew")
	}
	en.Use([]Given{{Rule: rule, Revision: 2}})
	if !selects(en, call{"2@a", "alice", "bob"}.message("INVITE", 0)) {
		t.Error("another revision does not count anew")
	}
}

func TestEngine_keepsItsCallsWhenRulesChange(t *testing.T) {
	alice := trace.Rule{Name: "m", FromUser: list("alice")}
	follows := func(change func(*trace.Rule), more ...trace.Rule) trace.Event {
		t.Helper()
		en := newTestEngine(t, Options{}, alice, trace.Rule{Name: "z", FromUser: list("zoe")})
		ask(en, call{"1@a", "alice", "bob"}.message("INVITE", 0))
		changed := alice
		change(&changed)
		use(t, en, append(more, changed)...)
		e, d := ask(en, back(call{"1@a", "alice", "bob"}.message("BYE", 0)))
		if !d.Passed {
			e.Rule = "-"
		}
		return e
	}
	longer := func(r *trace.Rule) { r.Expires, r.Table = time.Now().Add(time.Hour), "sip_trace_alice" }
	if e := follows(longer); e.Rule != "m" || e.Table != "sip_trace_alice" {
		t.Errorf("with more time and a table: rule %q, table %q", e.Rule, e.Table)
	}
	var others []trace.Rule
	for i := range 100 {
		others = append(others, trace.Rule{Name: fmt.Sprintf("a%d", i), FromUser: list("x")})
	}
	if e := follows(longer, others...); e.Rule != "m" {
		t.Errorf("among a hundred new rules: rule %q, want m", e.Rule)
	}
	if e := follows(func(r *trace.Rule) { r.FromUser = list("carol") }); e.Rule != "-" {
		t.Errorf("with another caller: rule %q, want the call to be left", e.Rule)
	}
	if e := follows(func(r *trace.Rule) { r.Name = "n" }); e.Rule != "-" {
		t.Errorf("under another name: rule %q, want the call to be left", e.Rule)
	}
}

func TestEngine_ignoresWhatIsNoGoodAndSaysSo(t *testing.T) {
	en := newTestEngine(t, Options{})
	given := []Given{
		{Rule: trace.Rule{Name: "good", FromUser: list("alice")}, Revision: 1},
		{Rule: trace.Rule{Name: "bad", When: "1 +"}, Revision: 2},
		{Rule: trace.Rule{Name: "unread"}, Revision: 3, Err: fmt.Errorf("unknown field")},
	}
	for i := range MaxRules {
		given = append(given, Given{Rule: trace.Rule{Name: fmt.Sprintf("z%03d", i)}, Revision: 9})
	}
	en.Use(given)
	wrong := make(map[string]string)
	for _, st := range en.Status() {
		if st.Err != nil {
			wrong[st.Name] = st.Err.Error()
		}
	}
	if len(wrong) != 3 || !strings.Contains(wrong["bad"], "when:1") || wrong["unread"] != "unknown field" || !strings.Contains(wrong[fmt.Sprintf("z%03d", MaxRules-1)], "one too many") {
		t.Errorf("ignored: %v", wrong)
	}
	if !selects(en, call{"1@a", "alice", "bob"}.message("INVITE", 0)) {
		t.Error("the good rule does not select")
	}
}

func TestEngine_doesNotAllocateForWhatDoesNotMatch(t *testing.T) {
	var all []trace.Rule
	for i := range 100 {
		all = append(all, kinds["mixed"](i), kinds["network"](i), kinds["header"](i), kinds["prefix"](i))
	}
	en := newTestEngine(t, Options{}, append(all, trace.Rule{FromUser: list("zoe"), Table: "zoe", Users: list("zoe")})...)
	events := make([]trace.Event, 64)
	scans := make([]sipmsg.Message, len(events))
	for i := range events {
		events[i] = call{fmt.Sprint(i), "al%69ce", "bob"}.message("invite", 0, "Folded: a\r\n b")
		sipmsg.Scan(&scans[i], events[i].Payload)
	}
	batch := make([]trace.Event, len(events))
	decide := func() {
		copy(batch, events)
		en.Decide(batch, scans, false)
	}
	if n := testing.AllocsPerRun(50, decide); n != 0 {
		t.Errorf("%v allocations for 64 events that match nothing, want none", n)
	}
	for i := range events { // now half are of calls that a rule follows
		if i%2 == 0 {
			ask(en, call{fmt.Sprint(i), "zoe", "bob"}.message("INVITE", 0))
		}
	}
	if n := testing.AllocsPerRun(50, decide); n != 0 {
		t.Errorf("%v allocations for 64 events of which half are followed, want none", n)
	}
}
