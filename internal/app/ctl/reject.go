package ctl

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// RejectCmd is ctl reject.
type RejectCmd struct {
	List  RejectListCmd  `cmd:"" help:"List what workers gave up on, with the reason."`
	Show  RejectShowCmd  `cmd:"" help:"Show a reject with its message."`
	Retry RejectRetryCmd `cmd:"" help:"Write rejects to the target they were meant for, and remove those that it takes."`
	Purge RejectPurgeCmd `cmd:"" help:"Remove rejects for good."`
}

// RejectFlags choose rejects.
type RejectFlags struct {
	app.BusFlags
	Worker string       `help:"Only what this worker gave up on: the name of its durable consumer, as list shows it." env:"-" placeholder:"NAME"`
	Reason string       `help:"Only what was given up for this reason." env:"-" placeholder:"REASON"`
	Since  app.Duration `help:"Only what was given up within this time: 15m, 1h30m, 7d." env:"-" placeholder:"DURATION"`
	CallID string       `name:"call-id" help:"Only messages with this Call-ID." env:"-" placeholder:"ID"`
}

func (f *RejectFlags) query(now time.Time) bus.RejectQuery {
	q := bus.RejectQuery{Worker: f.Worker, Reason: f.Reason}
	if f.Since > 0 {
		q.Since = now.Add(-time.Duration(f.Since))
	}
	return q
}

// wanted reports whether a reject has the Call-ID that is looked for.
func (f *RejectFlags) wanted(r *bus.StoredReject) bool {
	if f.CallID == "" {
		return true
	}
	return r.Event != nil && string(scanned(r.Event).CallID.Of(r.Event.Payload)) == f.CallID
}

// scanned is the SIP message of an event, or nothing.
func scanned(e *trace.Event) *sipmsg.Message {
	var m sipmsg.Message
	if e.Type == trace.TypeSIP {
		sipmsg.Scan(&m, e.Payload)
	}
	return &m
}

// each calls do for every reject that is chosen, the oldest first, and returns
// their number.
func (f *RejectFlags) each(env *Env, conn *bus.Conn, do func(*bus.StoredReject) error) (int, error) {
	n := 0
	for r, err := range bus.NewRejects(conn).List(env, f.query(time.Now())) {
		if err != nil {
			return n, err
		}
		if !f.wanted(&r) {
			continue
		}
		n++
		if err := do(&r); err != nil {
			return n, err
		}
	}
	return n, nil
}

// RejectListCmd is ctl reject list.
type RejectListCmd struct {
	RejectFlags
	Count bool `help:"Count them, by worker and reason." env:"-"`
	Limit int  `help:"The newest so many; 0 for all." default:"100" env:"-"`
	JSON  bool `name:"json" help:"One object a reject, or a count, and line." env:"-"`
	UTC   bool `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
}

// Help is the end of ctl reject list --help.
func (*RejectListCmd) Help() string {
	return `Examples:
  ctl reject list --count
  ctl reject list --worker db-writer --reason "unknown table" --since 1h`
}

// Run lists rejects, the oldest first.
func (c *RejectListCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	if c.Count {
		return c.count(env, conn)
	}
	var newest []bus.StoredReject
	n, err := c.each(env, conn, func(r *bus.StoredReject) error {
		if c.Limit > 0 && len(newest) == c.Limit {
			newest = slices.Delete(newest, 0, 1)
		}
		newest = append(newest, *r)
		return nil
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.printJSON(env.Stdout, newest)
	}
	if n == 0 {
		fmt.Fprintln(env.Stderr, "no rejects")
		return nil
	}
	if err := c.print(env.Stdout, newest); err != nil {
		return err
	}
	if n > len(newest) {
		fmt.Fprintf(env.Stderr, "the newest %d of %s; more with --limit\n", len(newest), count(n))
	}
	return nil
}

// maxDetail is how much of the far side's words the table shows.
const maxDetail = 80

func (c *RejectListCmd) print(w io.Writer, rejects []bus.StoredReject) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SEQ\tTIME\tWORKER\tREASON\tMESSAGE\tCALL-ID\tDETAIL")
	for i := range rejects {
		r := &rejects[i]
		what, callID := "no event", ""
		if r.Event != nil {
			m := scanned(r.Event)
			what, callID = summary(r.Event, m), show(m.CallID.Of(r.Event.Payload))
		}
		detail := show([]byte(r.Detail))
		if utf8.RuneCountInString(detail) > maxDetail {
			detail = string([]rune(detail)[:maxDetail]) + "…"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Seq, r.Time.In(zone(c.UTC)).Format(time.DateTime),
			show([]byte(r.Worker)), show([]byte(r.Reason)), what, callID, detail)
	}
	return t.Flush()
}

func (c *RejectListCmd) printJSON(w io.Writer, rejects []bus.StoredReject) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range rejects {
		if err := enc.Encode(rejectJSON(&rejects[i])); err != nil {
			return err
		}
	}
	return nil
}

// rejectJSON is a reject; its event has the names of the table's columns.
func rejectJSON(r *bus.StoredReject) map[string]any {
	v := map[string]any{
		"seq": r.Seq, "time": r.Time.UTC().Format(time.RFC3339Nano), "worker": r.Worker, "reason": r.Reason, "detail": r.Detail,
	}
	if r.Event != nil {
		e := eventJSON(r.Event, scanned(r.Event))
		e["table"], e["traced_users"], e["destinations"], e["rule"] = r.Event.Table, r.Event.TracedUsers, r.Event.Destinations, r.Event.Rule
		v["event"] = e
		return v
	}
	v["raw_b64"] = r.Raw
	if r.Cut > 0 {
		v["cut_from"] = r.Cut
	}
	return v
}

// A rejectCount is how many were given up by a worker for a reason.
type rejectCount struct {
	Worker string    `json:"worker"`
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
}

func (c *RejectListCmd) count(env *Env, conn *bus.Conn) error {
	counts := make(map[[2]string]*rejectCount)
	n, err := c.each(env, conn, func(r *bus.StoredReject) error {
		key := [2]string{r.Worker, r.Reason}
		if counts[key] == nil {
			counts[key] = &rejectCount{Worker: r.Worker, Reason: r.Reason, First: r.Time}
		}
		counts[key].Count++
		counts[key].Last = r.Time
		return nil
	})
	if err != nil {
		return err
	}
	var list []*rejectCount
	for _, v := range counts {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *rejectCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Reason, b.Reason))
	})
	if c.JSON {
		enc := json.NewEncoder(env.Stdout)
		for _, v := range list {
			if err := enc.Encode(v); err != nil {
				return err
			}
		}
		return nil
	}
	if n == 0 {
		fmt.Fprintln(env.Stderr, "no rejects")
		return nil
	}
	t := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "COUNT\tWORKER\tREASON\tFIRST\tLAST")
	for _, v := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", count(v.Count), show([]byte(v.Worker)), show([]byte(v.Reason)),
			v.First.In(zone(c.UTC)).Format(time.DateTime), v.Last.In(zone(c.UTC)).Format(time.DateTime))
	}
	return t.Flush()
}

func zone(utc bool) *time.Location {
	if utc {
		return time.UTC
	}
	return time.Local
}
