package store

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Event returns the event that r is a row of. It shares Msg and CorrelationID with r.
func (r *Row) Event() trace.Event {
	e := trace.Event{
		ID:            r.EventID,
		Time:          r.Time,
		Agent:         agent(r.Node),
		Direction:     r.Direction,
		Type:          eventType(r.Method),
		CorrelationID: r.CorrelationID,
		Payload:       r.Msg,
	}
	var from, to trace.Transport
	from, e.Src = parseAddr(r.FromIP)
	to, e.Dst = parseAddr(r.ToIP)
	e.Transport = cmp.Or(r.Transport, from, to)
	if len(r.TracedUser) > 0 {
		e.TracedUsers = []string{string(r.TracedUser)}
		e.Flags |= trace.UsersOnly
	}
	if e.ID.IsZero() {
		e.Identify()
	}
	return e
}

// add makes r, another row of the same event, part of e.
func add(e *trace.Event, r *Row) {
	if len(r.TracedUser) == 0 {
		e.Flags &^= trace.UsersOnly
		return
	}
	e.TracedUsers = append(e.TracedUsers, string(r.TracedUser))
	slices.Sort(e.TracedUsers)
}

func agent(node []byte) trace.Agent {
	if id, err := strconv.ParseUint(string(node), 10, 32); err == nil {
		return trace.Agent{ID: uint32(id)}
	}
	return trace.Agent{Name: string(node)}
}

func eventType(method []byte) uint8 {
	if n, ok := bytes.CutPrefix(method, []byte(foreignMethod)); ok {
		if typ, err := strconv.ParseUint(string(n), 10, 8); err == nil {
			return uint8(typ)
		}
	}
	return trace.TypeSIP
}
