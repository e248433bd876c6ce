package ctl

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/ladder"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RejectShowCmd is ctl reject show.
type RejectShowCmd struct {
	app.BusFlags
	Seq  uint64 `arg:"" name:"seq" help:"Number of the reject, as list shows it."`
	JSON bool   `name:"json" help:"Print one JSON object." env:"-"`
	UTC  bool   `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
}

// Run shows one reject.
func (c *RejectShowCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := bus.NewRejects(conn).Get(env, c.Seq)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(env.Stdout)
		enc.SetEscapeHTML(false)
		return enc.Encode(rejectJSON(&r))
	}
	return c.print(env.Stdout, &r)
}

func (c *RejectShowCmd) print(w io.Writer, r *bus.StoredReject) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, show([]byte(value)))
		}
	}
	const layout = "2006-01-02 15:04:05.000000 MST"
	field("reject", strconv.FormatUint(r.Seq, 10))
	field("given up", r.Time.In(zone(c.UTC)).Format(layout))
	field("worker", r.Worker)
	field("reason", r.Reason)
	field("detail", r.Detail)
	if e := r.Event; e != nil {
		field("event", e.ID.String())
		field("captured", e.Time.In(zone(c.UTC)).Format(layout))
		field("agent", agentText(e.Agent))
		field("message", summary(e, scanned(e)))
		field("transport", e.Transport.String())
		field("from", e.Src.String())
		field("to", e.Dst.String())
		field("direction", e.Direction.String())
		field("correlation id", string(e.CorrelationID))
		field("table", e.Table)
		field("traced users", strings.Join(e.TracedUsers, " "))
		field("destinations", strings.Join(e.Destinations, " "))
		field("rule", e.Rule)
		field("flags", flagsText(e.Flags))
	} else {
		field("encoding", r.Header.Get(bus.HeaderEncoding))
		field("bytes", strconv.Itoa(len(r.Raw)))
		if r.Cut > 0 {
			field("cut from", strconv.Itoa(r.Cut))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if r.Event == nil {
		_, err := io.WriteString(w, hex.Dump(r.Raw))
		return err
	}
	for line := range strings.Lines(strings.ReplaceAll(string(r.Event.Payload), "\r\n", "\n")) {
		if _, err := fmt.Fprintln(w, ladder.Printable([]byte(strings.TrimSuffix(line, "\n")))); err != nil {
			return err
		}
	}
	return nil
}

func agentText(a trace.Agent) string {
	id := ""
	if a.ID != 0 {
		id = strconv.FormatUint(uint64(a.ID), 10)
	}
	return strings.TrimSpace(a.Name + " " + id)
}

// flagsText is the flags in words.
func flagsText(fl trace.Flags) string {
	var words []string
	for _, f := range []struct {
		flag trace.Flags
		word string
	}{{trace.NoStore, "not stored"}, {trace.NoDuplicate, "not duplicated"}, {trace.Truncated, "cut"}, {trace.UsersOnly, "traced users only"}} {
		if fl.Has(f.flag) {
			words = append(words, f.word)
		}
	}
	return strings.Join(words, ", ")
}
