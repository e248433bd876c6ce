package ctl

import (
	"fmt"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/ladder"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// FlowCmd is ctl flow.
type FlowCmd struct {
	CallID string `arg:"" name:"call-id" help:"The call's Call-ID, as ctl search shows it."`
	StoreFlags
	RangeFlags
	Raw bool `help:"Show the messages themselves below the ladder."`
	UTC bool `name:"utc" help:"Show times in UTC instead of local time."`
}

// Help is the end of ctl flow --help.
func (*FlowCmd) Help() string {
	return `Examples:
  ctl flow 8f3c@pbx
  ctl flow 8f3c@pbx --since 7d --raw | less`
}

// Run draws the call.
func (c *FlowCmd) Run(env *Env) error {
	if c.CallID == "" {
		return app.Usagef("the Call-ID is empty: a ladder is of one call, and %s search lists them", self())
	}
	from, to, err := c.bounds(time.Now())
	if err != nil {
		return err
	}
	s, err := c.reader()
	if err != nil {
		return err
	}
	defer s.Close()
	var events []trace.Event
	for e, err := range s.Find(env, trace.Query{CallID: c.CallID, From: from, To: to, Table: c.Table}) {
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		return none(fmt.Sprintf("messages of call %q", c.CallID), &c.RangeFlags)
	}
	o := ladder.Options{Location: time.Local, Raw: c.Raw}
	if c.UTC {
		o.Location = time.UTC
	}
	first, last := events[0].Time, events[len(events)-1].Time
	fmt.Fprintf(env.Stdout, "call %s · %d messages · %s · %s\n\n", ladder.Printable([]byte(c.CallID)), len(events),
		first.In(o.Location).Format("2006-01-02 15:04:05 MST"), last.Sub(first).Round(time.Millisecond))
	return ladder.Draw(env.Stdout, events, o)
}
