package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/capture"
	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// RuleTestCmd is ctl rule test.
type RuleTestCmd struct {
	app.BusFlags
	RuleFlags
	File      string   `arg:"" help:"Capture file, pcap or pcapng, plain or gzip, or file of HEP3 packets; \"-\" is a capture on standard input."`
	RuleFiles []string `name:"rule" help:"File of a rule as rule show --json prints it, or of its rule alone; repeatable." sep:"none" env:"-" placeholder:"FILE.json"`
	Trace     string   `help:"Take tracing for switched on or off. Default: as it is, or off for rules that are not those of the taps." enum:"on,off," default:"" env:"-"`
	AgentID   uint32   `name:"agent-id" help:"Capture id of messages that have neither id nor name of an agent." env:"-" placeholder:"N"`
	AgentName string   `name:"agent-name" help:"Agent of messages that have neither id nor name. Default: the host's name, as with tap." env:"-" placeholder:"NAME"`
	Matched   bool     `help:"Show only what a rule applies to." env:"-"`
	JSON      bool     `name:"json" help:"One object a message and line." env:"-"`
	UTC       bool     `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
}

// Help is the end of ctl rule test --help.
func (*RuleTestCmd) Help() string {
	return `Which rules: that of the flags, those of --rule, else those of the taps. Nothing is stored or sent.
Examples:
  ctl rule test calls.pcap
  ctl rule test calls.pcap --caller alice --table sip_trace_alice
  ctl rule test backup.hep --rule shaky.json --matched --json`
}

// A trial asks rules about messages.
type trial struct {
	cmd    *RuleTestCmd
	env    *Env
	engine *rules.Engine
	all    bool // tracing is on

	names                         []string // of the rules
	applied                       map[string]int
	messages, pass, drop, leftOut int
}

// Run asks.
func (c *RuleTestCmd) Run(env *Env) error {
	if c.AgentName == "" {
		c.AgentName, _ = os.Hostname() // unknown is empty
	}
	given, on, err := c.rules(env)
	if err != nil {
		return err
	}
	engine, err := rules.NewEngine(rules.Options{}, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	engine.Use(given)
	t := &trial{cmd: c, env: env, engine: engine, all: on, applied: make(map[string]int)}
	for _, st := range engine.Status() {
		if st.Err != nil {
			fmt.Fprintf(env.Stderr, "rule %s is ignored: %s\n", st.Name, oneLine(st.Err.Error()))
			continue
		}
		t.names = append(t.names, st.Name)
	}
	src, err := c.open(env)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := src.Run(env, trace.SinkFunc(t.write)); err != nil {
		return err
	}
	return t.sum(src.leftOut())
}

// rules are the rules to ask, and whether tracing is on.
func (c *RuleTestCmd) rules(env *Env) (given []rules.Given, on bool, err error) {
	r, err := c.rule(time.Now())
	if err != nil {
		return nil, false, err
	}
	on = c.Trace == "on"
	if selective(&r) || len(c.RuleFiles) > 0 {
		if selective(&r) {
			r.Name = madeName(&r)
			if err := check(r); err != nil {
				return nil, false, inFlags(err)
			}
			given = append(given, rules.Given{Rule: r})
		}
		for _, name := range c.RuleFiles {
			r, err := readRule(name)
			if err != nil {
				return nil, false, err
			}
			given = append(given, rules.Given{Rule: r})
		}
		return given, on, nil
	}
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return nil, false, fmt.Errorf("%w; or say which rule with flags or --rule", err)
	}
	defer conn.Close()
	stored, err := bus.NewRuleStore(conn).List(env)
	if err != nil {
		return nil, false, err
	}
	for _, s := range stored {
		given = append(given, rules.Given{Rule: s.Rule, Revision: s.Revision, Err: s.Err})
	}
	if c.Trace == "" {
		state, err := bus.NewStateStore(conn).Get(env)
		if err != nil {
			return nil, false, err
		}
		on = state.Effective(time.Now())
	}
	return given, on, nil
}

// readRule reads a rule from a file.
func readRule(name string) (trace.Rule, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return trace.Rule{}, err
	}
	var wrapped struct {
		Rule json.RawMessage `json:"rule"`
	}
	if err := json.Unmarshal(text, &wrapped); err == nil && wrapped.Rule != nil {
		text = wrapped.Rule
	}
	var r trace.Rule
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	if r.Name == "" {
		r.Name = madeName(&r)
	}
	if err := check(r); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// open opens the file.
func (c *RuleTestCmd) open(env *Env) (importSource, error) {
	if c.File != "-" {
		is, err := isHEP(c.File)
		if err != nil {
			return nil, err
		}
		if is {
			return openHEPFile(c.File, env.Stdin)
		}
	}
	p, err := capture.OpenPcap(c.File, capture.PcapOptions{}, prometheus.NewRegistry(), env.log())
	if err != nil {
		return nil, err
	}
	return pcapSource{p}, nil
}

// write asks about messages and says what comes of it.
func (t *trial) write(_ context.Context, events []trace.Event) error {
	var scan sipmsg.Message
	for i := range events {
		e := t.bare(&events[i])
		if e.Type == trace.TypeSIP {
			sipmsg.Scan(&scan, e.Payload)
		}
		d := t.engine.Explain(&e, &scan, t.all)
		t.count(&d)
		if t.cmd.Matched && len(d.Rules) == 0 {
			continue
		}
		show := t.line
		if t.cmd.JSON {
			show = t.object
		}
		if err := show(&e, &scan, &d); err != nil {
			return err
		}
	}
	return nil
}

// bare is a message as a tap would get it: without what rules have said of it
// before.
func (t *trial) bare(e *trace.Event) trace.Event {
	b := *e
	b.Table, b.TracedUsers, b.Destinations, b.Rule = "", nil, nil, ""
	b.Flags &= trace.Truncated
	if b.Agent == (trace.Agent{}) {
		b.Agent = trace.Agent{ID: t.cmd.AgentID, Name: t.cmd.AgentName}
	}
	b.Src, b.Dst = unmapped(b.Src), unmapped(b.Dst)
	return b
}

func (t *trial) count(d *rules.Decision) {
	t.messages++
	switch {
	case d.Passed:
		t.pass++
	case d.Dropped:
		t.drop++
	default:
		t.leftOut++
	}
	for _, r := range d.Rules {
		t.applied[r.Name]++
	}
}

// sum says what came of all messages.
func (t *trial) sum(note string) error {
	if note != "" {
		fmt.Fprintln(t.env.Stderr, note)
	}
	word := "off"
	if t.all {
		word = "on"
	}
	fmt.Fprintf(t.env.Stderr, "%d messages, tracing %s: %d pass, %d dropped, %d not traced\n", t.messages, word, t.pass, t.drop, t.leftOut)
	for _, name := range t.names {
		fmt.Fprintf(t.env.Stderr, "rule %s applies to %d\n", name, t.applied[name])
	}
	return nil
}
