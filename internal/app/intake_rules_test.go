package app

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestRules_reachEveryTapAndTakeWholeCallsAndNothingElse(t *testing.T) {
	s := startNATS(t)
	c := dial(t, s.ClientURL())
	var send []func([]trace.Event)
	for i, mode := range []string{"all", "all", "rules"} {
		send = append(send, sender(t, startTap(t, s.ClientURL(), fmt.Sprintf("edge%d", i+1), mode)))
	}
	off(t, c, 3)
	tl := startTail(t, c)

	start := time.Now()
	revision, err := bus.NewRuleStore(c).Put(t.Context(), trace.Rule{Name: "alice", FromUser: []string{"alice"}, Table: "sip_trace_alice", Users: []string{"alice"}, Destinations: []string{"sip:127.0.0.1:5085"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "three taps have the rule", func() bool { return have(t, c, 3, "alice", revision) })
	if took := time.Since(start); took > heard {
		t.Errorf("three taps have the rule after %v", took)
	}

	want := make(map[string]int)
	sent := 0
	for i, to := range send {
		n := fmt.Sprint(i)
		wanted := append(talk{"answered-" + n, "alice", "bob"}.all(answered), talk{"cancelled-" + n, "alice", "carol"}.all(cancelled)...)
		others := append(talk{"others-" + n, "carol", "dave"}.all(answered), talk{"to-alice-" + n, "bob", "alice"}.all(answered)...)
		want["answered-"+n], want["cancelled-"+n] = len(answered), len(cancelled)
		for j := range max(len(wanted), len(others)) { // one call amid the others
			to(wanted[min(j, len(wanted)):min(j+1, len(wanted))])
			to(others[min(j, len(others)):min(j+1, len(others))])
		}
		sent += len(wanted) + len(others)
	}
	eventually(t, "the taps have had everything", func() bool { return received(t, c) == sent })
	eventually(t, "the calls are in the stream", func() bool { return len(tl.calls()) >= len(want) && total(tl.calls()) >= total(want) })
	if got := tl.calls(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("in the stream:\n got %v\nwant %v", got, want)
	}
	for _, e := range tl.events {
		if e.Rule != "alice" || e.Table != "sip_trace_alice" || len(e.TracedUsers) != 1 || len(e.Destinations) != 1 || !e.Flags.Has(trace.UsersOnly) {
			t.Fatalf("routing of an event: %+v", e)
		}
	}
	for _, node := range taps(t, c) {
		if got := node.Rules[0].Matched; got != uint64(len(answered)+len(cancelled)) {
			t.Errorf("%s: the rule has matched %d, want %d", node.Name, got, len(answered)+len(cancelled))
		}
	}
	if err := bus.NewRuleStore(c).Delete(t.Context(), "alice", revision, bus.Removal{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no tap has the rule", func() bool { return without(t, c, 3, "alice") })
	send[0](talk{"answered-0", "alice", "bob"}.all(answered))
	eventually(t, "the tap has had that, too", func() bool { return received(t, c) == sent+len(answered) })
	if got := tl.calls(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a removed rule selects: %v", got)
	}
}

func total(n map[string]int) (sum int) {
	for _, v := range n {
		sum += v
	}
	return sum
}

func TestRules_whileTracingIsOnTheyOnlyRoute(t *testing.T) {
	s := startNATS(t)
	c := dial(t, s.ClientURL())
	send := sender(t, startTap(t, s.ClientURL(), "edge", "all"))
	tl := startTail(t, c)
	store := bus.NewRuleStore(c)
	if _, err := store.Put(t.Context(), trace.Rule{Name: "alice", FromUser: []string{"alice"}, Users: []string{"alice"}}, 0); err != nil {
		t.Fatal(err)
	}
	revision, err := store.Put(t.Context(), trace.Rule{Name: "noise", Methods: []string{"OPTIONS"}, Drop: true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tap has the rules", func() bool { return have(t, c, 1, "noise", revision) })
	send(talk{"1", "alice", "bob"}.all(answered))
	send(talk{"2", "ping", "pong"}.all([]string{"OPTIONS", "200 OPTIONS"}))
	send(talk{"3", "carol", "dave"}.all(answered))
	want := map[string]int{"1": len(answered), "3": len(answered)}
	eventually(t, "the calls are in the stream", func() bool { return total(tl.calls()) >= total(want) })
	if got := tl.calls(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("in the stream: %v, want %v", got, want)
	}
	for _, e := range tl.events {
		if e.Flags.Has(trace.UsersOnly) || (len(e.TracedUsers) == 1) != (e.Rule == "alice") {
			t.Errorf("routing of an event: rule %q, users %v, flags %v", e.Rule, e.TracedUsers, e.Flags)
		}
	}
}

func TestRules_oneThatIsNoGoodIsReportedAndStopsNothing(t *testing.T) {
	s := startNATS(t)
	c := dial(t, s.ClientURL())
	send := sender(t, startTap(t, s.ClientURL(), "edge", "rules"))
	tl := startTail(t, c)
	store := bus.NewRuleStore(c)
	for _, r := range []trace.Rule{{Name: "bad", When: "method = 'INVITE'"}, {Name: "good", FromUser: []string{"alice"}}} {
		if _, err := store.Put(t.Context(), r, 0); err != nil {
			t.Fatal(err)
		}
	}
	var reported []bus.RuleStatus
	eventually(t, "the tap reports both rules", func() bool {
		for _, node := range taps(t, c) {
			reported = node.Rules
		}
		return len(reported) == 2
	})
	if bad := reported[0]; bad.Name != "bad" || bad.Revision == 0 || !strings.Contains(bad.Error, "when:1:8:") {
		t.Errorf("reported %+v, want where the expression is wrong", bad)
	}
	if good := reported[1]; good.Name != "good" || good.Error != "" {
		t.Errorf("reported %+v, want no error", good)
	}
	send(talk{"1", "alice", "bob"}.all(answered))
	eventually(t, "the good rule selects", func() bool { return tl.calls()["1"] == len(answered) })
}

// A lab is a tap without its sockets: rules that follow NATS, and an intake.
type lab struct {
	engine *rules.Engine
	in     *intake
	passed int
}

func newLab(t *testing.T, c *bus.Conn, path string) *lab {
	t.Helper()
	l := &lab{}
	l.in = newTestIntake(t, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		l.passed += len(events)
		return nil
	}))
	l.engine = l.in.rules
	l.in.gate.Set(false, 1)
	f := &ruleFollower{path: path, engine: l.engine, log: quietLog(), warned: make(map[string]uint64)}
	f.load()
	background(t, func(ctx context.Context) {
		if err := f.run(ctx, bus.NewRuleStore(c)); err != nil {
			t.Error(err)
		}
	})
	return l
}

// passes reports whether a message passes.
func (l *lab) passes(t *testing.T, e trace.Event) bool {
	t.Helper()
	before := l.passed
	if err := l.in.Write(t.Context(), []trace.Event{e}); err != nil {
		t.Fatal(err)
	}
	return l.passed > before
}

func TestRules_goOnWithoutNATSUntilTheyExpire(t *testing.T) {
	s := startNATS(t)
	c := dial(t, s.ClientURL())
	path := filepath.Join(t.TempDir(), "data", "rules.json")
	l := newLab(t, c, path)
	store := bus.NewRuleStore(c)
	expires := time.Now().Add(8 * time.Second)
	for _, r := range []trace.Rule{{Name: "short", FromUser: []string{"alice"}, Expires: expires}, {Name: "long", FromUser: []string{"carol"}, Expires: expires.Add(time.Hour)}} {
		if _, err := store.Put(t.Context(), r, 0); err != nil {
			t.Fatal(err)
		}
	}
	alice, carol := talk{"1", "alice", "bob"}, talk{"2", "carol", "bob"}
	eventually(t, "both rules select", func() bool { return l.passes(t, alice.say("INVITE")) && l.passes(t, carol.say("INVITE")) })
	eventually(t, "both rules are in the file", func() bool { kept, err := bus.LoadRules(path); return err == nil && len(kept) == 2 })
	s.Shutdown()
	eventually(t, "NATS is away", func() bool { return c.Check(t.Context()) != nil })
	if !l.passes(t, alice.say("< BYE")) && time.Now().Before(expires) {
		t.Error("without NATS the rule has gone before its time")
	}
	again := newLab(t, c, path) // as if the tap had been restarted
	if !again.passes(t, carol.say("INVITE")) {
		t.Error("a tap started without NATS does not know the rules")
	}
	eventually(t, "the rule has expired", func() bool { return !l.passes(t, alice.say("200 BYE")) })
	if now := time.Now(); now.Before(expires) {
		t.Errorf("it has expired %v too early", expires.Sub(now))
	}
	if again.passes(t, alice.say("INVITE")) || newLab(t, c, path).passes(t, alice.say("INVITE")) {
		t.Error("a tap started without NATS follows an expired rule")
	}
	if !l.passes(t, carol.say("< BYE")) {
		t.Error("the other rule has gone, too")
	}
	for _, st := range l.engine.Status() {
		if st.Name == "short" {
			t.Errorf("status still tells %+v", st)
		}
	}
}

func TestIntake_countsWhatRulesDo(t *testing.T) {
	var got []string
	in := newTestIntake(t, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		for _, e := range events {
			if e.ID.IsZero() {
				t.Error("an event without id")
			}
			got = append(got, e.Rule)
		}
		return nil
	}))
	in.gate.Set(false, 1)
	in.rules.Use([]rules.Given{
		{Rule: trace.Rule{Name: "alice", FromUser: []string{"alice"}}},
		{Rule: trace.Rule{Name: "noise", Methods: []string{"OPTIONS"}, Drop: true}},
	})
	var events []trace.Event
	for i := range 50 { // more than are decided about at a time
		events = append(events, talk{fmt.Sprint("a", i), "alice", "bob"}.say("INVITE"), talk{fmt.Sprint("c", i), "carol", "bob"}.say("INVITE"), talk{fmt.Sprint("o", i), "alice", "bob"}.say("OPTIONS"))
	}
	if err := in.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if len(got) != 50 || got[49] != "alice" || events[0].Rule != "" {
		t.Errorf("%d events pass as %v, want 50 of alice's", len(got), got)
	}
	if off, excluded := testutil.ToFloat64(in.metrics.off), testutil.ToFloat64(in.metrics.excluded); off != 50 || excluded != 50 {
		t.Errorf("%v unselected, %v dropped; want 50 and 50", off, excluded)
	}
}

func TestIntake_namesRejectedEventsByTheirPlaces(t *testing.T) {
	in := newTestIntake(t, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		return trace.Rejected{{Index: len(events) - 1, Reason: "test"}}
	}))
	in.gate.Set(false, 1)
	in.rules.Use([]rules.Given{{Rule: trace.Rule{Name: "alice", FromUser: []string{"alice"}}}})
	var events []trace.Event
	for i := range 100 {
		from := "carol"
		if i == 5 || i == 77 {
			from = "alice"
		}
		events = append(events, talk{fmt.Sprint(i), from, "bob"}.say("INVITE"))
	}
	no, ok := in.Write(t.Context(), events).(trace.Rejected)
	if !ok || len(no) != 1 || no[0].Index != 77 {
		t.Errorf("rejected %v, want event 77", no)
	}
}

func TestIntake_withRulesDoesNotAllocateForWhatTheyLeave(t *testing.T) {
	all := room(1 << 40)
	in := newTestIntake(t, nil)
	in.out = offering(&all, in.metrics)
	in.gate.Set(false, 1)
	in.rules.Use([]rules.Given{{Rule: trace.Rule{Name: "zoe", FromUser: []string{"zoe"}, Src: []string{"192.0.2.0/24"}}}})
	var batch []trace.Event
	for i := range 256 {
		batch = append(batch, talk{fmt.Sprint(i), "alice", "bob"}.say("INVITE"))
	}
	if n := testing.AllocsPerRun(50, func() { _ = in.Write(t.Context(), batch) }); n > 0 {
		t.Errorf("%v allocations for 256 events that no rule selects, want none", n)
	}
}

func BenchmarkIntake(b *testing.B) {
	for _, bb := range []struct {
		name  string
		rules int
	}{{"no rules", 0}, {"100 rules", 100}} {
		b.Run(bb.name, func(b *testing.B) {
			all := room(1 << 60)
			en, err := rules.NewEngine(rules.Options{}, prometheus.NewRegistry())
			if err != nil {
				b.Fatal(err)
			}
			m, err := newIntakeMetrics(prometheus.NewRegistry(), "bench")
			if err != nil {
				b.Fatal(err)
			}
			in := &intake{gate: new(Gate), all: true, rules: en, metrics: m, out: offering(&all, m)}
			in.gate.Set(true, 1)
			var given []rules.Given
			for i := range bb.rules {
				given = append(given, rules.Given{Rule: trace.Rule{Name: fmt.Sprint("r", i), FromUser: []string{fmt.Sprint("u", i)}}})
			}
			en.Use(given)
			var batch []trace.Event
			for i := range 64 {
				batch = append(batch, talk{fmt.Sprint(i), "alice", "bob"}.say("INVITE"))
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = in.Write(b.Context(), batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/event")
		})
	}
}
