package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// line says a decision to people.
func (t *trial) line(e *trace.Event, m *sipmsg.Message, d *rules.Decision) error {
	loc := time.Local
	if t.cmd.UTC {
		loc = time.UTC
	}
	if e.Type != trace.TypeSIP {
		m = &sipmsg.Message{}
	}
	_, err := fmt.Fprintf(t.env.Stdout, "%s  %-16s %21s → %-21s %-12s → %-12s %s  %s\n",
		e.Time.In(loc).Format("15:04:05.000000"), summary(e, m), e.Src, e.Dst,
		show(m.FromUser.Of(e.Payload)), show(m.ToUser.Of(e.Payload)), show(m.CallID.Of(e.Payload)), verdict(e, d))
	return err
}

// verdict is a decision in words.
func verdict(e *trace.Event, d *rules.Decision) string {
	var names []string
	for _, r := range d.Rules {
		name := r.Name
		if r.Followed {
			name += " (its call)"
		}
		names = append(names, name)
	}
	by := ""
	if len(names) > 0 {
		by = "  [" + strings.Join(names, ", ") + "]"
	}
	switch {
	case d.Dropped:
		return "dropped" + by
	case !d.Passed:
		return "not traced"
	}
	return strings.Join(fate(e), "; ") + by
}

// fate is what becomes of a message that passes.
func fate(e *trace.Event) []string {
	var does []string
	users := strings.Join(e.TracedUsers, ", ")
	switch {
	case e.Flags.Has(trace.NoStore):
		does = append(does, "not stored")
	case e.Flags.Has(trace.UsersOnly):
		does = append(does, "stored"+in(e.Table)+" for "+users)
	case users != "":
		does = append(does, "stored"+in(e.Table)+" and for "+users)
	default:
		does = append(does, "stored"+in(e.Table))
	}
	switch {
	case e.Flags.Has(trace.NoDuplicate):
		does = append(does, "no copies")
	case len(e.Destinations) > 0:
		does = append(does, "copy to "+strings.Join(redacted(e.Destinations), ", "))
	}
	return does
}

func in(table string) string {
	if table == "" {
		return ""
	}
	return " in " + table
}

// object says a decision to programs.
func (t *trial) object(e *trace.Event, m *sipmsg.Message, d *rules.Decision) error {
	type reason struct {
		Name     string `json:"name"`
		Followed bool   `json:"followed"`
	}
	v := struct {
		Time         time.Time `json:"time"`
		Message      string    `json:"message"`
		Src          string    `json:"src"`
		Dst          string    `json:"dst"`
		CallID       string    `json:"callid"`
		Passes       bool      `json:"passes"`
		Dropped      bool      `json:"dropped"`
		Rules        []reason  `json:"rules"`
		Table        string    `json:"table"`
		Users        []string  `json:"users"`
		UsersOnly    bool      `json:"users_only"`
		Destinations []string  `json:"destinations"`
		NoStore      bool      `json:"no_store"`
		NoDuplicate  bool      `json:"no_duplicate"`
	}{
		Time: e.Time.UTC(), Message: summary(e, m), Src: e.Src.String(), Dst: e.Dst.String(),
		Passes: d.Passed, Dropped: d.Dropped, Rules: []reason{}, Table: e.Table,
		Users: slices.Concat([]string{}, e.TracedUsers), UsersOnly: e.Flags.Has(trace.UsersOnly),
		Destinations: slices.Concat([]string{}, e.Destinations), NoStore: e.Flags.Has(trace.NoStore), NoDuplicate: e.Flags.Has(trace.NoDuplicate),
	}
	if e.Type == trace.TypeSIP {
		v.CallID = string(m.CallID.Of(e.Payload))
	}
	for _, r := range d.Rules {
		v.Rules = append(v.Rules, reason(r))
	}
	return encodeAll(t.env.Stdout, []any{v})
}
