package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RuleCmd is ctl rule.
type RuleCmd struct {
	Add     RuleAddCmd     `cmd:"" help:"Trace calls of somebody, or route what is traced, on every tap at once."`
	List    RuleListCmd    `cmd:"" help:"List the rules and how they do."`
	Show    RuleShowCmd    `cmd:"" help:"Show one rule and every tap that has it."`
	Remove  RuleRemoveCmd  `cmd:"" help:"Remove rules."`
	History RuleHistoryCmd `cmd:"" help:"Show who has added, changed and removed rules."`
	Test    RuleTestCmd    `cmd:"" help:"Say what rules would do with the messages of a file."`
}

// RuleListCmd is ctl rule list.
type RuleListCmd struct {
	app.BusFlags
	JSON bool `name:"json" help:"One object a rule and line." env:"-"`
}

// Run lists the rules.
func (c *RuleListCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	stored, err := bus.NewRuleStore(conn).List(env)
	if err != nil {
		return err
	}
	nodes, err := conn.Nodes(env, quiet)
	if err != nil {
		return err
	}
	var views []ruleView
	for _, r := range stored {
		views = append(views, view(r, nodes, time.Now()))
	}
	if c.JSON {
		return encodeAll(env.Stdout, views)
	}
	if len(views) == 0 {
		fmt.Fprintf(env.Stderr, "no rules; add one with: %s rule add --caller alice --for 15m\n", self())
		return nil
	}
	return printRules(env.Stdout, views)
}

// A ruleView is a rule and what taps say of it.
type ruleView struct {
	Rule     trace.Rule `json:"rule"`
	Revision uint64     `json:"revision"`
	State    string     `json:"state"` // active, expired, ended, or no good
	Error    string     `json:"error,omitempty"`
	Matched  uint64     `json:"matched"`
	Failed   uint64     `json:"failed"` // events that its expression came to no answer about
	Taps     []tapView  `json:"taps"`
}

// A tapView is what one tap says of a rule.
type tapView struct {
	Name string `json:"name"`
	Host string `json:"host"`
	Has  bool   `json:"has"` // this revision, and it is good
	bus.RuleStatus
}

// view puts together what is known of a rule.
func view(r bus.StoredRule, nodes []bus.NodeStatus, now time.Time) ruleView {
	v := ruleView{Rule: r.Rule, Revision: r.Revision, State: "active", Taps: []tapView{}}
	ended := 0
	for _, n := range nodes {
		if n.Service != "tap" {
			continue
		}
		t := tapView{Name: n.Name, Host: n.Host}
		if i := slices.IndexFunc(n.Rules, func(s bus.RuleStatus) bool { return s.Name == r.Name }); i >= 0 {
			t.RuleStatus = n.Rules[i]
			t.Has = t.Revision == r.Revision && t.Error == ""
		}
		if t.Has {
			v.Matched += t.Matched
			v.Failed += t.Failed
		}
		if t.Ended {
			ended++
		}
		v.Error = cmp.Or(v.Error, t.Error)
		v.Taps = append(v.Taps, t)
	}
	if err := fault(r); err != nil && v.Error == "" {
		v.Error = err.Error()
	}
	switch {
	case v.Error != "":
		v.State = "no good"
	case r.Expired(now):
		v.State = "expired"
	case ended > 0 && ended == len(v.Taps):
		v.State = "ended"
	}
	return v
}

// fault is what is wrong with a rule, whether or not a tap is there to say so.
func fault(r bus.StoredRule) error {
	if r.Err != nil {
		return r.Err
	}
	return compile(r.Rule)
}

// has is how many taps have the rule, of how many.
func (v *ruleView) has() string {
	n := 0
	for _, t := range v.Taps {
		if t.Has {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(v.Taps))
}

func printRules(w io.Writer, views []ruleView) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tLEFT\tTAPS\tMATCHED\tSELECTS\tDOES\tWHO\tWHY")
	for _, v := range views {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", v.Rule.Name, v.State, timeLeft(&v.Rule), v.has(), v.Matched,
			selectsText(&v.Rule), doesText(&v.Rule), printable(v.Rule.Who), printable(v.Rule.Why))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range views {
		if v.Error != "" {
			fmt.Fprintf(w, "rule %s is ignored: %s\n", v.Rule.Name, oneLine(v.Error))
		}
		if v.Failed > 0 {
			fmt.Fprintf(w, "rule %s: its expression came to no answer about %d messages\n", v.Rule.Name, v.Failed)
		}
	}
	return nil
}

// timeLeft is how long a rule goes on.
func timeLeft(r *trace.Rule) string {
	switch left := time.Until(r.Expires); {
	case r.Expires.IsZero():
		return "-"
	case left <= 0:
		return "0s"
	default:
		return left.Round(time.Second).String()
	}
}

// oneLine is an error of several faults in one line.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// encodeAll writes an object a line.
func encodeAll[T any](w io.Writer, values []T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// RuleRemoveCmd is ctl rule remove.
type RuleRemoveCmd struct {
	app.BusFlags
	Names []string `arg:"" name:"name" help:"The rules."`
	Why   string   `help:"Why; kept in the history." env:"-" placeholder:"TEXT"`
	Who   string   `help:"Who removes. Default: USER@HOST." env:"-" placeholder:"NAME"`
}

// Run removes rules.
func (c *RuleRemoveCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	store := bus.NewRuleStore(conn)
	by := bus.Removal{Who: cmp.Or(c.Who, caller()), Why: c.Why}
	for _, name := range c.Names {
		r, err := store.Get(env, name)
		if err != nil && r.Err == nil { // one that cannot be read can be removed
			return noRule(err)
		}
		if err := store.Delete(env, name, r.Revision, by); err != nil {
			return err
		}
		fmt.Fprintf(env.Stdout, "removed %s\n", name)
	}
	return nil
}

// applied waits until every tap has the revision of a rule, or for a while, and
// returns the rule as taps see it then.
func applied(env *Env, conn *bus.Conn, r bus.StoredRule) (ruleView, error) {
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(env, patience)
	defer cancel()
	for {
		nodes, err := conn.Nodes(env, quiet)
		if err != nil {
			return ruleView{}, err
		}
		v := view(r, nodes, time.Now())
		waiting := slices.ContainsFunc(v.Taps, func(t tapView) bool { return t.Revision < r.Revision })
		if !waiting || ctx.Err() != nil {
			return v, env.Err()
		}
	}
}
