package ctl

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/ladder"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// printable is a text that somebody has written, fit for a terminal.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	return ladder.Printable([]byte(s))
}

// selectsText is what a rule selects, in the words of rule add's flags.
func selectsText(r *trace.Rule) string {
	var parts []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			parts = append(parts, name+"="+shortList(values))
		}
	}
	add("method", r.Methods)
	add("caller", r.FromUser)
	add("caller-domain", r.FromDomain)
	add("callee", r.ToUser)
	add("callee-domain", r.ToDomain)
	add("ruri", r.RURIUser)
	add("ruri-domain", r.RURIDomain)
	add("call-id", r.CallID)
	add("src", r.Src)
	add("dst", r.Dst)
	add("addr", r.Addr)
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		add("header="+ladder.Printable([]byte(name)), r.Headers[name])
	}
	add("agents", r.Agents)
	if r.When != "" {
		parts = append(parts, "when="+strconv.Quote(shortText(r.When)))
	}
	if r.Sample > 0 {
		parts = append(parts, "sample="+strconv.FormatFloat(r.Sample, 'g', -1, 64)+"%")
	}
	if r.Scope == trace.ScopeMessage {
		parts = append(parts, "scope=message")
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, " ")
}

// doesText is what a rule does, likewise.
func doesText(r *trace.Rule) string {
	var parts []string
	add := func(name string, values ...string) {
		if len(values) > 0 && values[0] != "" {
			parts = append(parts, name+"="+shortList(values))
		}
	}
	add("table", r.Table)
	add("user", r.Users...)
	add("user-from", r.UsersFrom...)
	add("to", redacted(r.Destinations)...)
	for _, flag := range []struct {
		set  bool
		name string
	}{{r.NoStore, "no-store"}, {r.NoDuplicate, "no-duplicate"}, {r.Drop, "drop"}} {
		if flag.set {
			parts = append(parts, flag.name)
		}
	}
	if len(parts) == 0 {
		return "trace"
	}
	return strings.Join(parts, " ")
}

// redacted are URIs without secrets.
func redacted(uris []string) []string {
	var out []string
	for _, uri := range uris {
		out = append(out, app.Redact(uri))
	}
	return out
}

// shortList shows the first few values.
func shortList(values []string) string {
	const most = 4
	more := ""
	if len(values) > most {
		more = fmt.Sprintf(",… (%d)", len(values))
		values = values[:most]
	}
	var shown []string
	for _, v := range values {
		shown = append(shown, ladder.Printable([]byte(v)))
	}
	return strings.Join(shown, ",") + more
}

// shortText shows the beginning of what may be long.
func shortText(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
