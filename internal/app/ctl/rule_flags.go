package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// RuleFlags are a rule on the command line.
type RuleFlags struct {
	Caller       []string `help:"User of From, repeatable." sep:"none" env:"-" placeholder:"USER" group:"Which messages"`
	Callee       []string `help:"User of To." sep:"none" env:"-" placeholder:"USER" group:"Which messages"`
	RURI         []string `name:"ruri" help:"User of the request URI." sep:"none" env:"-" placeholder:"USER" group:"Which messages"`
	CallerDomain []string `help:"Host of From." env:"-" placeholder:"HOST" group:"Which messages"`
	CalleeDomain []string `help:"Host of To." env:"-" placeholder:"HOST" group:"Which messages"`
	RURIDomain   []string `name:"ruri-domain" help:"Host of the request URI." env:"-" placeholder:"HOST" group:"Which messages"`
	Method       []string `help:"Method; of replies the one of their CSeq." env:"-" placeholder:"METHOD" group:"Which messages"`
	CallID       []string `name:"call-id" help:"Call-ID." sep:"none" env:"-" placeholder:"ID" group:"Which messages"`
	Src          []string `help:"Source: address, network, :port, or both." env:"-" placeholder:"ADDR" group:"Which messages"`
	Dst          []string `help:"Destination, likewise." env:"-" placeholder:"ADDR" group:"Which messages"`
	Addr         []string `help:"Either side, likewise." env:"-" placeholder:"ADDR" group:"Which messages"`
	Header       []string `help:"Value of a header field. Different fields must all match." sep:"none" env:"-" placeholder:"NAME=VALUE" group:"Which messages"`
	Agents       []string `help:"Only what these have captured: names or capture ids." env:"-" placeholder:"AGENT" group:"Which messages"`
	When         string   `help:"CEL expression, asked when all else matches." env:"-" placeholder:"CEL" group:"Which messages"`
	Sample       Percent  `help:"Only so many of the calls that match: 10%." env:"-" placeholder:"PERCENT" group:"Which messages"`
	Scope        string   `help:"dialog: what matches brings the rest of its call along; message: itself alone." enum:"dialog,message" default:"dialog" env:"-" group:"Which messages"`

	Table       string   `help:"Database table in place of db-writer's. It must exist, or db-writer run with --create-tables." env:"-" placeholder:"TABLE" group:"What becomes of them"`
	User        []string `help:"Store a row for this traced user, repeatable." sep:"none" env:"-" placeholder:"USER" group:"What becomes of them"`
	UserFrom    []string `help:"Store a row for the user of from, to, ruri of the message that matched." env:"-" placeholder:"from,to,ruri" group:"What becomes of them"`
	To          []string `help:"Send a copy there in place of hep-forwarder's default destinations, repeatable: sip:HOST:PORT, hep+udp://HOST:PORT. hep-forwarder must --allow the host." sep:"none" env:"-" placeholder:"URI" group:"What becomes of them"`
	NoStore     bool     `help:"Store nothing." env:"-" group:"What becomes of them"`
	NoDuplicate bool     `help:"Send no copies." env:"-" group:"What becomes of them"`
	Drop        bool     `help:"Let nothing of it pass, whatever else selects it." env:"-" group:"What becomes of them"`

	For       app.Duration `help:"End after this long." env:"-" placeholder:"DURATION" xor:"end" group:"How long"`
	Until     string       `help:"End at this time: 2026-11-22T08:00:00Z, \"2026-11-22 08:00\", 08:00 (today)." env:"-" placeholder:"TIME" xor:"end" group:"How long"`
	MaxEvents uint64       `help:"End after so many events, on each tap." env:"-" placeholder:"N" group:"How long"`
}

// Percent is a share that people write "10%" or "0.5".
type Percent float64

// UnmarshalText reads a percentage.
func (p *Percent) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(string(text), "%"), 64)
	if err != nil || !(f > 0 && f <= 100) {
		return fmt.Errorf("share %q: use 10%% or 0.5%%", text)
	}
	*p = Percent(f)
	return nil
}

// rule is the rule that the flags say, without name and author.
func (f *RuleFlags) rule(now time.Time) (trace.Rule, error) {
	r := trace.Rule{
		Methods: f.Method, FromUser: f.Caller, FromDomain: f.CallerDomain, ToUser: f.Callee, ToDomain: f.CalleeDomain,
		RURIUser: f.RURI, RURIDomain: f.RURIDomain, CallID: f.CallID, Src: f.Src, Dst: f.Dst, Addr: f.Addr,
		Agents: f.Agents, When: f.When, Sample: float64(f.Sample),
		Table: f.Table, Users: f.User, UsersFrom: f.UserFrom, Destinations: f.To,
		NoStore: f.NoStore, NoDuplicate: f.NoDuplicate, Drop: f.Drop, MaxEvents: f.MaxEvents,
	}
	if f.Scope == trace.ScopeMessage {
		r.Scope = f.Scope
	}
	for _, h := range f.Header {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return r, app.Usagef("--header %q: want NAME=VALUE", h)
		}
		if r.Headers == nil {
			r.Headers = make(map[string][]string)
		}
		r.Headers[name] = append(r.Headers[name], value)
	}
	if f.For > 0 {
		r.Expires = now.Add(time.Duration(f.For)).UTC().Truncate(time.Millisecond)
	}
	if f.Until != "" {
		until, err := parseTime(f.Until, now)
		if err != nil {
			return r, err
		}
		if !until.After(now) {
			return r, app.Usagef("--until %s is over", until.Format(time.DateTime))
		}
		r.Expires = until.UTC()
	}
	return r, nil
}

// selective reports whether the flags select anything in particular.
func selective(r *trace.Rule) bool {
	return len(r.Methods)+len(r.FromUser)+len(r.FromDomain)+len(r.ToUser)+len(r.ToDomain)+len(r.RURIUser)+len(r.RURIDomain)+
		len(r.CallID)+len(r.Src)+len(r.Dst)+len(r.Addr)+len(r.Headers)+len(r.Agents) > 0 || r.When != "" || r.Sample > 0
}

// flagOf are the flags that set a rule's fields, where they are called otherwise.
func flagOf(field string) string {
	names := map[string]string{
		"from_user": "caller", "from_domain": "caller-domain", "to_user": "callee", "to_domain": "callee-domain",
		"ruri_user": "ruri", "methods": "method", "users": "user", "users_from": "user-from", "destinations": "to", "headers": "header",
	}
	if strings.HasPrefix(field, "headers.") {
		field = "headers"
	}
	return "--" + cmp.Or(names[field], strings.ReplaceAll(field, "_", "-"))
}

// compile says what is wrong with a rule, as taps will.
func compile(r trace.Rule) error {
	compiler, err := rules.NewCompiler()
	if err != nil {
		return err
	}
	_, err = compiler.Compile(r, 0)
	return err
}

// check is compile, and a look at destinations, as hep-forwarder will look.
func check(r trace.Rule) error {
	if err := compile(r); err != nil {
		return err
	}
	for _, uri := range r.Destinations {
		if _, err := forward.ParseDestination(uri); err != nil {
			return err
		}
	}
	return nil
}

// inFlags says an error of a rule in the words of the command line.
func inFlags(err error) error {
	var faults []error
	for _, one := range each(err) {
		var f *rules.FieldError
		if !errors.As(one, &f) {
			faults = append(faults, one)
			continue
		}
		if at, ok := strings.CutPrefix(f.Field, "when:"); ok {
			faults = append(faults, fmt.Errorf("--when at %s %w", at, f.Err))
			continue
		}
		said := *f
		said.Field, said.Index = flagOf(f.Field), 0
		faults = append(faults, &said)
	}
	return app.UsageError{Err: errors.Join(faults...)}
}

// each is the errors that were joined into one.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}
