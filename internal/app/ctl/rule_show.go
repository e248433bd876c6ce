package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RuleShowCmd is ctl rule show.
type RuleShowCmd struct {
	app.BusFlags
	Name string `arg:"" help:"The rule."`
	JSON bool   `name:"json" help:"Print one JSON object; its key rule is what rule test --rule takes." env:"-"`
}

// Run shows a rule.
func (c *RuleShowCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := bus.NewRuleStore(conn).Get(env, c.Name)
	if err != nil && r.Err == nil {
		return noRule(err)
	}
	nodes, err := conn.Nodes(env, quiet)
	if err != nil {
		return err
	}
	v := view(r, nodes, time.Now())
	if c.JSON {
		return encodeAll(env.Stdout, []ruleView{v})
	}
	return v.print(env.Stdout)
}

// noRule says what to try when a rule is not there.
func noRule(err error) error {
	if errors.Is(err, bus.ErrNoRule) {
		return fmt.Errorf("%w; see: %s rule list", err, self())
	}
	return err
}

func (v *ruleView) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	r := &v.Rule
	line("name", r.Name)
	line("revision", fmt.Sprint(v.Revision))
	line("state", v.State)
	line("ignored", oneLine(v.Error))
	line("selects", selectsText(r))
	line("scope", cmp.Or(r.Scope, trace.ScopeDialog))
	line("does", doesText(r))
	if !r.Expires.IsZero() {
		line("until", r.Expires.Local().Format(time.DateTime)+", "+timeLeft(r)+" left")
	}
	if r.MaxEvents > 0 {
		line("at most", fmt.Sprintf("%d events on each tap", r.MaxEvents))
	}
	line("who", printable(r.Who))
	line("why", printable(r.Why))
	if !r.Created.IsZero() {
		line("when", r.Created.Local().Format(time.DateTime))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return v.printTaps(w)
}

func (v *ruleView) printTaps(w io.Writer) error {
	if len(v.Taps) == 0 {
		_, err := fmt.Fprintln(w, "no tap answers")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TAP\tHOST\tREVISION\tMATCHED\tFAILED\tNOTE")
	for _, tap := range v.Taps {
		note, revision := oneLine(tap.Error), fmt.Sprint(tap.Revision)
		switch {
		case tap.Revision == 0:
			revision, note = "-", "has not got it"
		case tap.Ended:
			note = "has had its events"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", tap.Name, tap.Host, revision, tap.Matched, tap.Failed, note)
	}
	return t.Flush()
}
