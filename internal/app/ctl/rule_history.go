package ctl

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RuleHistoryCmd is ctl rule history.
type RuleHistoryCmd struct {
	app.BusFlags
	Name string `arg:"" optional:"" help:"The rule; none is all."`
	JSON bool   `name:"json" help:"One object a change and line." env:"-"`
	UTC  bool   `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
}

// A changeView is one change as JSON shows it.
type changeView struct {
	When     time.Time  `json:"when"`
	Name     string     `json:"name"`
	Revision uint64     `json:"revision"`
	What     string     `json:"what"` // added, changed or removed
	Who      string     `json:"who,omitempty"`
	Why      string     `json:"why,omitempty"`
	Rule     trace.Rule `json:"rule,omitzero"`
	Error    string     `json:"error,omitempty"`
}

// Run shows the changes, the oldest first.
func (c *RuleHistoryCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	changes, err := bus.NewRuleStore(conn).History(env, c.Name)
	if err != nil {
		return err
	}
	if len(changes) == 0 && c.Name != "" {
		return fmt.Errorf("%w, and there never was one: %s", bus.ErrNoRule, c.Name)
	}
	views := changeViews(changes)
	if c.JSON {
		return encodeAll(env.Stdout, views)
	}
	loc := time.Local
	if c.UTC {
		loc = time.UTC
	}
	t := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tNAME\tREVISION\tWHAT\tWHO\tWHY\tSELECTS\tDOES")
	for _, v := range views {
		selects, does := "-", "-"
		if v.What != "removed" && v.Error == "" {
			selects, does = selectsText(&v.Rule), doesText(&v.Rule)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", v.When.In(loc).Format(time.DateTime), v.Name, v.Revision, v.What,
			printable(v.Who), printable(v.Why), selects, does)
	}
	return t.Flush()
}

func changeViews(changes []bus.RuleChange) []changeView {
	there := make(map[string]bool)
	var views []changeView
	for _, c := range changes {
		v := changeView{When: c.When, Name: c.Name, Revision: c.Revision, What: "added", Who: c.Who, Why: c.Why}
		switch {
		case c.Removed:
			v.What = "removed"
		case there[c.Name]:
			v.What = "changed"
		}
		if c.Err != nil {
			v.Error = c.Err.Error()
		}
		if !c.Removed {
			v.Rule = c.Rule
		}
		there[c.Name] = !c.Removed
		views = append(views, v)
	}
	return views
}
