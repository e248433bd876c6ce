package rules

import (
	"fmt"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// kinds are rules as operators write them, none of which matches alice's call.
var kinds = map[string]func(i int) trace.Rule{
	"caller": func(i int) trace.Rule { return trace.Rule{FromUser: []string{fmt.Sprintf("user%d", i)}} },
	"callee": func(i int) trace.Rule {
		return trace.Rule{ToUser: []string{fmt.Sprintf("user%d", i)}, Methods: []string{"INVITE"}}
	},
	"prefix":  func(i int) trace.Rule { return trace.Rule{FromUser: []string{fmt.Sprintf("49%d*", i)}} },
	"network": func(i int) trace.Rule { return trace.Rule{Addr: []string{fmt.Sprintf("10.%d.0.0/16", i)}} },
	"header": func(i int) trace.Rule {
		return trace.Rule{Headers: map[string][]string{"User-Agent": {fmt.Sprintf("*scanner%d*", i)}}}
	},
	"mixed": func(i int) trace.Rule {
		return [...]trace.Rule{
			{FromUser: []string{fmt.Sprintf("user%d", i)}, Methods: []string{"INVITE", "BYE"}},
			{ToUser: []string{fmt.Sprintf("49%d*", i)}},
			{Src: []string{fmt.Sprintf("10.%d.0.0/16:5060", i)}, Methods: []string{"REGISTER"}},
			{RURIUser: []string{fmt.Sprintf("+49%d", i)}, FromDomain: []string{"example.org"}},
			{FromDomain: []string{fmt.Sprintf("c%d.example.org", i)}},
		}[i%5]
	},
	"expression": func(i int) trace.Rule {
		return trace.Rule{When: fmt.Sprintf("method == 'INVITE' && from_user == 'user%d'", i)}
	},
}

// BenchmarkDecide is a message that matches no rule: what rules cost all others.
func BenchmarkDecide(b *testing.B) {
	for _, kind := range []string{"caller", "callee", "prefix", "network", "header", "mixed", "expression"} {
		for _, n := range []int{1, 20, 100} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				var list []trace.Rule
				for i := range n {
					list = append(list, kinds[kind](i))
				}
				en := newTestEngine(b, Options{}, list...)
				benchmark(b, en, call{"a@b", "alice", "bob"})
			})
		}
	}
}

// BenchmarkDecide_followed is a message of a call that a rule follows, among
// 100,000 others.
func BenchmarkDecide_followed(b *testing.B) {
	en := newTestEngine(b, Options{}, trace.Rule{FromUser: []string{"alice"}, Table: "sip_trace_alice", Users: []string{"alice"}})
	for i := range DefaultDialogs {
		selects(en, call{fmt.Sprintf("%d@b", i), "alice", "bob"}.message("INVITE", 0))
	}
	benchmark(b, en, call{"500@b", "bob", "alice"})
}

func benchmark(b *testing.B, en *Engine, c call) {
	b.Helper()
	events := make([]trace.Event, 64)
	scans := make([]sipmsg.Message, len(events))
	for i := range events {
		events[i] = c.message("INVITE", 0)
		sipmsg.Scan(&scans[i], events[i].Payload)
	}
	batch := make([]trace.Event, len(events))
	b.ReportAllocs()
	for b.Loop() {
		copy(batch, events)
		en.Decide(batch, scans, false)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
}
