package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// StatusCmd is ctl status.
type StatusCmd struct {
	app.BusFlags
	Interval app.Duration `help:"Time between the two looks from which rates are reckoned." default:"1s" placeholder:"DURATION"`
	JSON     bool         `name:"json" help:"Print one JSON object."`
}

// quiet is how long status waits for one more node to answer.
const quiet = 300 * time.Millisecond

// A report is everything ctl status knows.
type report struct {
	State     stateJSON            `json:"state"`
	Nodes     []nodeJSON           `json:"nodes"`
	Stream    bus.StreamStatus     `json:"stream"`
	Consumers []bus.ConsumerStatus `json:"consumers"`
}

type stateJSON struct {
	Enabled bool `json:"enabled"`
	bus.State
	Revision uint64 `json:"revision"`
}

type nodeJSON struct {
	bus.NodeStatus
	Rates map[string]float64 `json:"rates"` // per second, for each counter
}

// Run looks twice and reports.
func (c *StatusCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := look(env, conn, time.Duration(c.Interval))
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(env.Stdout).Encode(r)
	}
	return r.print(env.Stdout, telemetry.IsTerminal(env.Stdout))
}

// look gathers a report.
func look(env *Env, conn *bus.Conn, interval time.Duration) (*report, error) {
	s, err := bus.NewStateStore(conn).Get(env)
	if err != nil {
		return nil, err
	}
	r := &report{State: stateJSON{s.Effective(time.Now()), s, s.Revision}}
	began := time.Now()
	before, err := conn.Nodes(env, quiet)
	if err != nil {
		return nil, err
	}
	select {
	case <-env.Done():
		return nil, env.Err()
	case <-time.After(time.Until(began.Add(interval))):
	}
	elapsed := time.Since(began).Seconds()
	after, err := conn.Nodes(env, quiet)
	if err != nil {
		return nil, err
	}
	r.Nodes = rates(before, after, elapsed)
	if r.Stream, err = conn.StreamStatus(env); err != nil {
		return nil, err
	}
	r.Consumers, err = conn.Consumers(env)
	return r, err
}

// rates reckons per second what the counters did between two looks.
func rates(before, after []bus.NodeStatus, seconds float64) []nodeJSON {
	old := make(map[string]bus.NodeStatus)
	for _, n := range before {
		old[n.Instance] = n
	}
	var out []nodeJSON
	for _, n := range after {
		v := nodeJSON{n, make(map[string]float64)}
		if was, ok := old[n.Instance]; ok {
			for key, now := range n.Counters {
				v.Rates[key] = (float64(now) - float64(was.Counters[key])) / seconds
			}
		}
		out = append(out, v)
	}
	return out
}

// red marks what somebody should look at.
func red(s string, colour bool) string {
	if !colour {
		return s
	}
	return "\x1b[31m" + s + "\x1b[0m"
}

func (r *report) print(w io.Writer, colour bool) error {
	word := "Disabled"
	if r.State.Enabled {
		word = "Enabled"
	}
	fmt.Fprintf(w, "trace   %s, revision %d", word, r.State.Revision)
	if r.State.Revision > 0 {
		fmt.Fprintf(w, ", by %s at %s", r.State.Who, r.State.When.Local().Format(time.DateTime))
		if r.State.Why != "" {
			fmt.Fprintf(w, ": %s", r.State.Why)
		}
	}
	frames := fmt.Sprintf("%d frames", r.Stream.Frames)
	if n := len(r.Stream.Shards); n > 0 {
		frames += fmt.Sprintf(" in %d streams", n)
	}
	fmt.Fprintf(w, "\nstream  %s, %s of %s, the oldest %s\n\n", frames, humanize.IBytes(r.Stream.Bytes),
		limit(r.Stream.MaxBytes), ago(r.Stream.FirstTime))
	if err := r.printNodes(w, colour); err != nil {
		return err
	}
	if err := r.printRules(w, colour); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return r.printConsumers(w, colour)
}

func (r *report) printNodes(w io.Writer, colour bool) error {
	if len(r.Nodes) == 0 {
		_, err := fmt.Fprintln(w, "no tap and no worker answers; start one with: "+self()+" up")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tNAME\tHOST\tUP\tSTATE\tIN/S\tOUT/S\tIN\tOUT\tLOST\tREJECTED\tNOTE")
	for _, n := range r.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.0f\t%.0f\t%d\t%d\t%d\t%d\t%s\n", n.Service, n.Name, n.Host,
			time.Since(n.Started).Round(time.Second), r.applied(&n.NodeStatus), n.Rates["in"], n.Rates["out"],
			n.Counters["in"], n.Counters["out"], n.Counters["dropped"], n.Counters["rejected"], n.Waiting)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range r.Nodes {
		if lost := n.Counters["dropped"]; lost > 0 {
			fmt.Fprintln(w, red(fmt.Sprintf("%s %s has lost %d; its /metrics say why", n.Service, n.Name, lost), colour))
		}
		if size := n.Counters["spool_bytes"]; size > 0 {
			fmt.Fprintf(w, "%s %s keeps %s, %d frames, on disk until NATS takes them\n", n.Service, n.Name, humanize.IBytes(size), n.Counters["spool_frames"])
		}
	}
	return nil
}

// applied is the state a tap has applied; workers have none.
func (r *report) applied(n *bus.NodeStatus) string {
	if n.Service != "tap" {
		return "-"
	}
	s := "off"
	if n.StateOn {
		s = "on"
	}
	if n.Revision != r.State.Revision {
		s += fmt.Sprintf(" (revision %d)", n.Revision)
	}
	return s
}

func (r *report) printConsumers(w io.Writer, colour bool) error {
	if len(r.Consumers) == 0 {
		_, err := fmt.Fprintln(w, "no consumer yet: nothing reads the stream")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CONSUMER\tFRAMES BEHIND\tIN WORK\tREDELIVERED\tOLDEST UNREAD\tSPACE LEFT\tTIME LEFT")
	var warnings []string
	for _, c := range r.Consumers {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\n", c.Name, c.Pending, c.AckPending, c.Redelivered,
			c.OldestUnread.Round(100*time.Millisecond), limit(c.SpaceLeft), left(c.TimeLeft))
		if c.Pending > 0 && c.TimeLeft < time.Hour {
			warnings = append(warnings, fmt.Sprintf("consumer %s: what it has not read is discarded in %s unless it catches up", c.Name, left(c.TimeLeft)))
		}
		if c.Missed > 0 {
			warnings = append(warnings, fmt.Sprintf("consumer %s: %s discarded before it had read them", c.Name, were(c.Missed, "frame")))
		}
		if all := len(r.Stream.Shards); c.Streams < all {
			warnings = append(warnings, fmt.Sprintf("consumer %s: there in %d of %d streams; the others are not read until its worker, or %s stream apply --durable %s, makes it",
				c.Name, c.Streams, all, self(), c.Name))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, line := range warnings {
		fmt.Fprintln(w, red(line, colour))
	}
	return nil
}

func limit(bytes int64) string {
	if bytes < 0 {
		return "no limit"
	}
	return humanize.IBytes(uint64(bytes))
}

func left(d time.Duration) string {
	if d == bus.Forever {
		return "no limit"
	}
	return d.Round(time.Second).String()
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}
