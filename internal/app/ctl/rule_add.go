package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RuleAddCmd is ctl rule add.
type RuleAddCmd struct {
	app.BusFlags
	RuleFlags
	Name    string `arg:"" optional:"" help:"Name of the rule: letters, digits, - and _. Default: made of what it selects."`
	All     bool   `help:"Mean every message, for there is no flag that says which." env:"-"`
	Replace bool   `help:"Change the rule of that name. It goes on with the calls it follows if it selects as before." env:"-"`
	Who     string `help:"Who adds it. Default: USER@HOST." env:"-" placeholder:"NAME"`
	Why     string `help:"Why; shown by list and kept in the history." env:"-" placeholder:"TEXT"`
	JSON    bool   `name:"json" help:"Print the rule as one JSON object." env:"-"`
}

// Help is the end of ctl rule add --help.
func (*RuleAddCmd) Help() string {
	return `All that is given must match; of several values for one flag, one must. "!" in front of a value means not.
"49*" is a beginning, "*99" an end, "*pbx*" anything in between, "*" whatever is there; \* is a star.
A rule that names caller, callee or request URI takes up calls at their beginning.

While tracing is on for all (ctl trace check) everything is selected, and rules say where it goes; switched off, or on a
tap with --mode rules, only what a rule selects is traced. With --user and --user-from there is no row without a user then.
A table must exist, or db-writer run with --create-tables: otherwise what is for it goes to the rejects.

Examples:
  ctl rule add --caller alice --for 2m --table sip_trace_alice --to sip:127.0.0.1:5085 --why "ticket 4711"
  ctl rule add carrier --addr 203.0.113.0/24 --method INVITE,BYE --for 1h
  ctl rule add noise --method OPTIONS --scope message --drop
  ctl rule add shaky --when 'status >= 500 && header("X-Tenant") == "acme"' --user-from from,to
  ctl rule add a-tenth --sample 10%`
}

// Run adds a rule.
func (c *RuleAddCmd) Run(env *Env) error {
	now := time.Now()
	r, err := c.rule(now)
	if err != nil {
		return err
	}
	r.Who, r.Why, r.Created = cmp.Or(c.Who, caller()), c.Why, now.UTC().Truncate(time.Millisecond)
	switch {
	case !selective(&r) && !c.All:
		return app.Usagef("nothing says which messages are meant: give --caller, --addr or the like, or --all")
	case c.Replace && c.Name == "":
		return app.Usagef("--replace wants the name of a rule")
	}
	r.Name = cmp.Or(c.Name, madeName(&r))
	if err := check(r); err != nil {
		return inFlags(err)
	}
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	store := bus.NewRuleStore(conn)
	stored, err := c.put(env, store, r, now)
	if err != nil {
		return err
	}
	v, err := applied(env, conn, stored)
	if err != nil {
		return err
	}
	if err := c.say(env, conn, &v); err != nil {
		return err
	}
	return sweep(env, store, now)
}

// put stores the rule. A name that was made is made otherwise if it is taken;
// one that was given is taken only by rules that go on.
func (c *RuleAddCmd) put(env *Env, store *bus.RuleStore, r trace.Rule, now time.Time) (bus.StoredRule, error) {
	made := r.Name
	for n := 2; ; n++ {
		revision := uint64(0)
		old, err := store.Get(env, r.Name)
		switch {
		case errors.Is(err, bus.ErrNoRule):
			if c.Replace {
				return bus.StoredRule{}, noRule(err)
			}
		case err != nil && old.Err == nil:
			return bus.StoredRule{}, err
		case c.Replace, old.Err == nil && old.Expired(now):
			revision = old.Revision
		case c.Name != "":
			return bus.StoredRule{}, fmt.Errorf("there is a rule %s already, of %s: %s; change it with --replace, or give another name", r.Name, cmp.Or(old.Who, "nobody"), selectsText(&old.Rule))
		default:
			r.Name = fmt.Sprintf("%s-%d", made, n)
			continue
		}
		revision, err = store.Put(env, r, revision)
		if errors.Is(err, bus.ErrRuleConflict) && c.Name == "" {
			continue // somebody has just taken the name
		}
		return bus.StoredRule{Rule: r, Revision: revision}, err
	}
}

// say tells what was added and what else matters.
func (c *RuleAddCmd) say(env *Env, conn *bus.Conn, v *ruleView) error {
	if c.JSON {
		return encodeAll(env.Stdout, []*ruleView{v})
	}
	r := &v.Rule
	fmt.Fprintln(env.Stdout, r.Name)
	until := "until it is removed"
	if !r.Expires.IsZero() {
		until = "until " + r.Expires.Local().Format(time.DateTime)
	}
	fmt.Fprintf(env.Stderr, "%s → %s, %s; %s of the taps have it\n", selectsText(r), doesText(r), until, v.has())
	for _, t := range v.Taps {
		if t.Error != "" {
			fmt.Fprintf(env.Stderr, "tap %s ignores it: %s\n", t.Name, oneLine(t.Error))
		}
	}
	if r.Table != "" {
		fmt.Fprintf(env.Stderr, "db-writer needs --create-tables, or a table %s that is there\n", r.Table)
	}
	if len(r.Destinations) > 0 {
		fmt.Fprintln(env.Stderr, "hep-forwarder needs --allow for the hosts it is sent to")
	}
	state, err := bus.NewStateStore(conn).Get(env)
	if err == nil && state.Effective(time.Now()) {
		fmt.Fprintf(env.Stderr, "tracing is on: other messages are traced, too; only what rules select with: %s trace off\n", self())
	}
	return err
}

// sweepAfter is how long an expired rule is kept for people to look at. Longer
// than a clock is wrong.
const sweepAfter = 24 * time.Hour

// sweep removes rules that have been expired for long.
func sweep(env *Env, store *bus.RuleStore, now time.Time) error {
	all, err := store.List(env)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Err != nil || !r.Expired(now.Add(-sweepAfter)) {
			continue
		}
		err := store.Delete(env, r.Name, r.Revision, bus.Removal{Who: caller(), Why: "expired " + r.Expires.Format(time.RFC3339)})
		if err != nil && !errors.Is(err, bus.ErrRuleConflict) {
			return err
		}
	}
	return nil
}

// madeName makes a name of what a rule selects.
func madeName(r *trace.Rule) string {
	for _, s := range []struct {
		word   string
		values []string
	}{
		{"caller", r.FromUser}, {"callee", r.ToUser}, {"ruri", r.RURIUser}, {"call", r.CallID}, {"addr", r.Addr}, {"src", r.Src}, {"dst", r.Dst},
		{"caller", r.FromDomain}, {"callee", r.ToDomain}, {"ruri", r.RURIDomain}, {"header", slices.Sorted(maps.Keys(r.Headers))}, {"method", r.Methods}, {"agent", r.Agents},
	} {
		if len(s.values) > 0 {
			return slug(s.word + "-" + s.values[0])
		}
	}
	return "rule"
}

// slug makes a text fit to be a rule's name.
func slug(s string) string {
	const most = 40
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '-'
	}, s)
	s = strings.TrimRight(s[:min(len(s), most)], "-")
	if rules.CheckName(s) != nil {
		return "rule"
	}
	return s
}
