package rules

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Rule is a rule that can be asked. It never changes, and is for several
// goroutines.
type Rule struct {
	trace.Rule
	Revision uint64 // of the bucket; a rule with another revision counts anew

	agents  *words // nil is every agent
	checks  []check
	headers []headerTest
	when    cel.Program // nil is none
	keys    []key       // none if the rule is to be asked about every message
	share   float64     // of the calls, 0 to 1
	selects [32]byte    // digest of all that selects: rules with the same one select the same
}

// A check is one selector.
type check func(*message) bool

// A Compiler compiles rules. It is for several goroutines.
type Compiler struct{ env *environment }

// NewCompiler returns a compiler.
func NewCompiler() (*Compiler, error) {
	env, err := newEnvironment()
	if err != nil {
		return nil, err
	}
	return &Compiler{env}, nil
}

// Compile makes a rule fit to be asked, or says all that is wrong with it, each
// fault a [FieldError].
func (c *Compiler) Compile(plain trace.Rule, revision uint64) (*Rule, error) {
	r := &Rule{Rule: plain, Revision: revision, share: 1}
	errs := []error{CheckName(plain.Name), checkWords("who", plain.Who), checkWords("why", plain.Why)}
	errs = append(errs, r.addWords()...)
	errs = append(errs, r.addAddresses()...)
	errs = append(errs, r.addHeaders()...)
	errs = append(errs, r.addLimits()...)
	errs = append(errs, checkEffects(&plain)...)
	if plain.When != "" {
		program, err := c.env.compile(plain.When)
		r.when = program
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.selects = digest(plain)
	return r, nil
}

// addWords adds the selectors of words. The first that has keys is the one by
// which the rule is looked up.
func (r *Rule) addWords() []error {
	var errs []error
	for _, s := range []struct {
		field  string
		part   part
		values []string
		like   func(string) string
	}{
		{"call_id", callID, r.CallID, nil},
		{"from_user", fromUser, r.FromUser, nil},
		{"to_user", toUser, r.ToUser, nil},
		{"ruri_user", ruriUser, r.RURIUser, nil},
		{"from_domain", fromDomain, r.FromDomain, domainLike},
		{"to_domain", toDomain, r.ToDomain, domainLike},
		{"ruri_domain", ruriDomain, r.RURIDomain, domainLike},
		{"methods", method, r.Methods, strings.ToUpper},
	} {
		if len(s.values) == 0 {
			continue
		}
		w, err := newWords(s.field, s.values, s.like)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		part := s.part
		if len(r.keys) == 0 {
			r.keys = w.keys(part)
		}
		r.checks = append(r.checks, func(m *message) bool { return w.match(m.words[part]) })
	}
	return errs
}

// weakKeys reports that it would be better to look the rule up by something
// else: methods are what half of all messages have.
func (r *Rule) weakKeys() bool {
	return len(r.keys) == 0 || r.keys[0].form <= end && r.keys[0].part == method
}

// domainLike writes a domain as messages are read.
func domainLike(s string) string {
	s = strings.ToLower(s)
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	return s
}

// addAddresses adds the selectors of addresses.
func (r *Rule) addAddresses() []error {
	var errs []error
	for _, s := range []struct {
		field  string
		values []string
		forms  []form
		check  func(*endpoints) check
	}{
		{"src", r.Src, []form{source}, func(n *endpoints) check {
			return func(m *message) bool { return n.match(m.event.Src) }
		}},
		{"dst", r.Dst, []form{target}, func(n *endpoints) check {
			return func(m *message) bool { return n.match(m.event.Dst) }
		}},
		{"addr", r.Addr, []form{source, target}, func(n *endpoints) check {
			return func(m *message) bool { return n.match2(m.event.Src, m.event.Dst) }
		}},
	} {
		if len(s.values) == 0 {
			continue
		}
		n, err := newEndpoints(s.field, s.values)
		errs = append(errs, err)
		r.checks = append(r.checks, s.check(n))
		if keys := n.keys(s.forms...); len(keys) > 0 && r.weakKeys() {
			r.keys = keys
		}
	}
	return errs
}

// addHeaders adds the selectors of header fields.
func (r *Rule) addHeaders() []error {
	var errs []error
	for name, values := range r.Headers {
		if !headerName(name) {
			errs = append(errs, &FieldError{Field: "headers", Value: name, Err: errors.New("is not the name of a header field, in full")})
			continue
		}
		if len(values) == 0 {
			errs = append(errs, &FieldError{Field: "headers", Value: name, Err: errors.New(`has no value; "*" is whatever is there`)})
			continue
		}
		w, err := newWords("headers."+name, values, nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.headers = append(r.headers, headerTest{strings.ToLower(name), w, none})
	}
	return append(errs, checkCount("headers", len(r.Headers), maxHeaders)...)
}

// firstHeader is a header test without which the rule cannot match, or -1.
func (r *Rule) firstHeader() int {
	return slices.IndexFunc(r.headers, func(h headerTest) bool { return !h.values.open() })
}

// addLimits reads what bounds the rule.
func (r *Rule) addLimits() []error {
	var errs []error
	if len(r.Agents) > 0 {
		w, err := newWords("agents", r.Agents, nil)
		errs = append(errs, err)
		r.agents = w
	}
	switch {
	case r.Sample != r.Sample || r.Sample < 0 || r.Sample > 100:
		errs = append(errs, &FieldError{Field: "sample", Err: fmt.Errorf("is %v; want a percentage up to 100", r.Sample)})
	case r.Sample > 0:
		r.share = r.Sample / 100
	}
	switch r.Scope {
	case "", trace.ScopeDialog, trace.ScopeMessage:
	default:
		errs = append(errs, &FieldError{Field: "scope", Value: r.Scope, Err: errors.New("is neither dialog nor message")})
	}
	return errs
}

// dialog reports whether the rule takes what follows a message.
func (r *Rule) dialog() bool { return r.Scope != trace.ScopeMessage }

// parties reports whether the rule asks who calls whom, of whole calls.
func (r *Rule) parties() bool {
	return r.dialog() && len(r.FromUser)+len(r.FromDomain)+len(r.ToUser)+len(r.ToDomain)+len(r.RURIUser)+len(r.RURIDomain) > 0
}

// wants reports whether the rule names a method that is at home within calls.
func (r *Rule) wants(method string) bool {
	return method != "INVITE" && method != "SUBSCRIBE" &&
		slices.ContainsFunc(r.Methods, func(m string) bool { return strings.EqualFold(m, method) })
}

// permits reports whether the agent of m is one of the rule's.
func (r *Rule) permits(m *message) bool {
	return r.agents == nil || r.agents.match2(m.event.Agent.Name, m.agent)
}

// digest tells apart rules that select differently.
func digest(r trace.Rule) [32]byte {
	r.Table, r.Users, r.Destinations = "", nil, nil
	r.NoStore, r.NoDuplicate, r.Drop = false, false, false
	r.Expires, r.Created, r.MaxEvents = time.Time{}, time.Time{}, 0
	r.Who, r.Why = "", ""
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain data
	}
	return sha256.Sum256(text)
}

// sortRules puts rules in the order in which they count: by name.
func sortRules(list []*Rule) {
	slices.SortFunc(list, func(a, b *Rule) int { return strings.Compare(a.Name, b.Name) })
}
