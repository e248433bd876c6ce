package rules

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

var errTooMany = fmt.Errorf("is one too many: a tap follows %d rules", MaxRules)

// A verdict is what becomes of an event.
type verdict uint8

const (
	unselected verdict = iota
	passed
	dropped
)

// decide finds the rules that apply to an event, and applies them.
func (en *Engine) decide(e *trace.Event, scan *sipmsg.Message, all bool, now time.Duration) verdict {
	clear(en.asked)
	clear(en.hit)
	en.m.load(e, scan, en.set)
	en.match()
	copy(en.effective, en.hit)
	followed := none
	if en.m.words[callID] != "" {
		followed = en.follow(now)
	}
	if en.effective.any() {
		return en.apply(e, all, followed)
	}
	if all {
		return passed
	}
	return unselected
}

// match finds the rules that the message matches by itself.
func (en *Engine) match() {
	set := en.set
	for n := range set.index.texts {
		en.askAll(set.index.texts[n].find(&en.m))
	}
	for n := range set.index.nets {
		en.askAll(set.index.nets[n].find(&en.m))
	}
	if set.asksHeaders {
		en.m.walk(&set.headers)
		en.askAll(en.m.headers.asking)
	}
	en.askAll(set.rest)
}

func (en *Engine) askAll(list []int32) {
	for _, i := range list {
		if i := int(i); en.alive.has(i) && !en.asked.has(i) {
			en.asked.set(i) // it may have several keys
			en.ask(i)
		}
	}
}

// ask asks one rule about the message. An expression that comes to no answer
// says no.
func (en *Engine) ask(i int) {
	r, m := en.set.rules[i], &en.m
	for _, check := range r.checks {
		if !check(m) {
			return
		}
	}
	if !r.permits(m) || r.share < 1 && m.share() >= r.share {
		return
	}
	for n := range r.headers {
		if !m.header(&en.set.headers, en.set.first[i]+n) {
			return
		}
	}
	if r.when != nil {
		yes, err := m.evaluate(r.when)
		if err != nil {
			en.counts[i].failed++
			en.metrics.failed.Inc()
		}
		if !yes {
			return
		}
	}
	en.hit.set(i)
}

// follow adds the rules that follow the message's Call-ID, and notes it for
// those that match now. It returns the entry of the Call-ID, or none.
func (en *Engine) follow(now time.Duration) int32 {
	d := en.dialogs
	begins := en.hit.meets(en.set.dialogs)
	if d.len() == 0 && !begins {
		return none
	}
	k := d.key(en.m.words[callID])
	at := d.find(k, now)
	if at == none {
		if !begins {
			return none
		}
		at = d.add(k, now)
	}
	en.bar(at)
	known := d.following(at)
	for i := known.next(0); i >= 0; i = known.next(i + 1) {
		if en.set.rules[i].permits(&en.m) {
			en.effective.set(i)
		}
	}
	for i := en.hit.next(0); i >= 0; i = en.hit.next(i + 1) {
		if known.has(i) || !en.set.dialogs.has(i) {
			continue
		}
		known.set(i)
		for _, user := range en.usersOf(en.set.rules[i]) {
			d.entries[at].users = append(d.entries[at].users, taken{int32(i), user})
		}
	}
	d.touch(at, &en.m, now)
	return at
}

// bar keeps rules that name caller, callee or request URI from taking up a
// call in its middle. There, From is who sends the request and not who calls:
// the BYE of a call to alice is from alice, if she ends it. What answers such a
// request has no mark of its own, so the Call-ID is noted.
func (en *Engine) bar(at int32) {
	if en.m.scan == nil || !en.hit.meets(en.set.parties) {
		return
	}
	known, barred := en.dialogs.following(at), en.dialogs.barred(at)
	inside := en.m.scan.Request && !en.m.scan.ToTag.Empty()
	for i := en.hit.next(0); i >= 0; i = en.hit.next(i + 1) {
		switch {
		case !en.set.parties.has(i) || known.has(i):
			continue
		case inside && !en.set.rules[i].wants(en.m.words[method]):
			barred.set(i)
		case en.m.scan.Request || !barred.has(i):
			barred.clear(i)
			continue
		}
		en.hit.clear(i)
		en.effective.clear(i)
	}
}

// usersOf are the users that a rule takes from the message.
func (en *Engine) usersOf(r *Rule) []string {
	m := &en.m
	if len(r.UsersFrom) == 0 || m.scan == nil {
		return nil
	}
	var users []string
	for _, from := range r.UsersFrom {
		var span sipmsg.Span
		switch from {
		case trace.UserFrom:
			span = m.scan.FromUser
		case trace.UserTo:
			span = m.scan.ToUser
		case trace.UserRURI:
			span = m.scan.RURIUser
		}
		user := en.names.Of(span.Of(m.event.Payload))
		if user != "" && len(user) <= maxText && !slices.Contains(users, user) {
			users = append(users, user)
		}
	}
	return users
}

// apply sets the routing of an event as the effective rules want it.
func (en *Engine) apply(e *trace.Event, all bool, followed int32) verdict {
	v := passed
	targeted, ended := true, false
	for i := en.effective.next(0); i >= 0; i = en.effective.next(i + 1) {
		r := en.set.rules[i]
		en.counts[i].matched++
		if r.MaxEvents > 0 && en.counts[i].matched >= r.MaxEvents {
			en.alive.clear(i)
			ended = true
		}
		if r.Drop {
			v = dropped
		}
		targeted = en.route(e, r, int32(i), followed) && targeted
	}
	if !all && targeted {
		e.Flags |= trace.UsersOnly
	}
	if ended {
		en.forget()
	}
	return v
}

// route sets what one rule wants, and reports whether it wants rows for users
// alone. Where it takes users from messages and this one has none, the row
// without a user is better than none.
func (en *Engine) route(e *trace.Event, r *Rule, i, followed int32) (targeted bool) {
	if e.Rule == "" {
		e.Rule = r.Name
	}
	if e.Table == "" {
		e.Table = r.Table
	}
	if r.NoStore {
		e.Flags |= trace.NoStore
	}
	if r.NoDuplicate {
		e.Flags |= trace.NoDuplicate
	}
	e.Destinations = en.unite(e.Destinations, r.Destinations, maxDestinations)
	e.TracedUsers = en.unite(e.TracedUsers, r.Users, maxUsers)
	targeted = len(r.Users) > 0
	if len(r.UsersFrom) == 0 {
		return targeted
	}
	if followed == none || !r.dialog() {
		users := en.usersOf(r)
		e.TracedUsers = en.unite(e.TracedUsers, users, maxUsers)
		return targeted || len(users) > 0
	}
	for _, t := range en.dialogs.entries[followed].users {
		if t.rule == i {
			e.TracedUsers = en.unite(e.TracedUsers, []string{t.user}, maxUsers)
			targeted = true
		}
	}
	return targeted
}

// unite returns have and what more adds to it, as a slice that nobody else
// appends to. What is beyond most is left out and counted.
func (en *Engine) unite(have, more []string, most int) []string {
	if len(have) == 0 {
		return slices.Clip(more)
	}
	have = slices.Clip(have)
	for _, s := range more {
		switch {
		case slices.Contains(have, s):
		case len(have) >= most:
			en.metrics.cut.Inc()
		default:
			have = append(have, s)
		}
	}
	return have
}
