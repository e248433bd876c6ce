package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/ladder"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// TailCmd is ctl tail.
type TailCmd struct {
	app.BusFlags
	FilterFlags
	Agent string       `help:"Only what this agent has captured: its name or capture id." placeholder:"AGENT"`
	Since app.Duration `help:"Begin this far back instead of now." placeholder:"DURATION"`
	Count int          `short:"n" help:"End after so many messages; 0 goes on." placeholder:"N"`
	Raw   bool         `help:"Show whole messages."`
	JSON  bool         `name:"json" help:"One object a message and line."`
	Color string       `help:"Colours: auto, always or never." enum:"auto,always,never" default:"auto"`
	UTC   bool         `name:"utc" help:"Show times in UTC instead of local time."`
}

// Help is the end of ctl tail --help.
func (*TailCmd) Help() string {
	return `Examples:
  ctl tail --method INVITE
  ctl tail --user alice --raw
  ctl tail --addr 10.1.1.0/24 --json | jq -r .callid`
}

// errEnough ends a tail that has shown what was asked for.
var errEnough = errors.New("enough")

// Run shows messages until a signal, or until there are enough.
func (c *TailCmd) Run(env *Env) error {
	var q trace.Query
	if err := c.apply(&q); err != nil {
		return err
	}
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	o := bus.TailOptions{}
	if c.Since > 0 {
		o.Since = time.Now().Add(-time.Duration(c.Since))
	}
	p := c.printer(env)
	shown := 0
	ctx, cancel := context.WithCancel(env)
	defer cancel()
	err = bus.NewTail(conn, o, env.log()).Run(ctx, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		for i := range events {
			var m sipmsg.Message
			if events[i].Type == trace.TypeSIP {
				sipmsg.Scan(&m, events[i].Payload)
			}
			if !c.wanted(&q, &events[i], &m) {
				continue
			}
			if err := p(&events[i], &m); err != nil {
				return err
			}
			if shown++; shown == c.Count {
				cancel()
				return errEnough
			}
		}
		return nil
	}))
	if c.Count > 0 && shown == c.Count {
		return nil
	}
	return err
}

// wanted reports whether a message passes the filter.
func (c *TailCmd) wanted(q *trace.Query, e *trace.Event, m *sipmsg.Message) bool {
	b := e.Payload
	switch {
	case q.CallID != "" && string(m.CallID.Of(b)) != q.CallID:
		return false
	case q.Method != "" && !strings.EqualFold(string(m.EventMethod(b)), q.Method):
		return false
	case q.User != "" && !c.concerns(q.User, e, m):
		return false
	case q.Addr.IsValid() && !matches(q, e.Src) && !matches(q, e.Dst):
		return false
	case c.Agent != "" && e.Agent.Name != c.Agent && fmt.Sprint(e.Agent.ID) != c.Agent:
		return false
	}
	return true
}

func (c *TailCmd) concerns(user string, e *trace.Event, m *sipmsg.Message) bool {
	for _, u := range e.TracedUsers {
		if u == user {
			return true
		}
	}
	b := e.Payload
	return string(m.FromUser.Of(b)) == user || string(m.ToUser.Of(b)) == user || string(m.RURIUser.Of(b)) == user
}

func matches(q *trace.Query, a netip.AddrPort) bool {
	return q.Addr.Contains(a.Addr().Unmap()) && (q.Port == 0 || q.Port == a.Port())
}

// printer returns how messages are shown.
func (c *TailCmd) printer(env *Env) func(*trace.Event, *sipmsg.Message) error {
	loc := time.Local
	if c.UTC {
		loc = time.UTC
	}
	if c.JSON {
		enc := json.NewEncoder(env.Stdout)
		enc.SetEscapeHTML(false)
		return func(e *trace.Event, m *sipmsg.Message) error { return enc.Encode(eventJSON(e, m)) }
	}
	colour := c.Color == "always" || c.Color == "auto" && telemetry.IsTerminal(env.Stdout)
	return func(e *trace.Event, m *sipmsg.Message) error {
		line := fmt.Sprintf("%s  %-22s %21s → %-21s %-12s → %-12s %s",
			e.Time.In(loc).Format("15:04:05.000000"), summary(e, m), e.Src, e.Dst,
			show(m.FromUser.Of(e.Payload)), show(m.ToUser.Of(e.Payload)), show(m.CallID.Of(e.Payload)))
		if colour {
			line = paint(m) + line + "\x1b[0m"
		}
		if _, err := fmt.Fprintln(env.Stdout, line); err != nil {
			return err
		}
		if !c.Raw {
			return nil
		}
		for l := range strings.Lines(strings.ReplaceAll(string(e.Payload), "\r\n", "\n")) {
			fmt.Fprintln(env.Stdout, "    "+ladder.Printable([]byte(strings.TrimSuffix(l, "\n"))))
		}
		_, err := fmt.Fprintln(env.Stdout)
		return err
	}
}

// summary is a message in a word or two.
func summary(e *trace.Event, m *sipmsg.Message) string {
	s := "?"
	switch {
	case e.Type != trace.TypeSIP:
		return fmt.Sprintf("HEP type %d", e.Type)
	case m.Status != 0:
		s = fmt.Sprintf("%d %s", m.Status, show(m.EventMethod(e.Payload)))
	case len(m.Method.Of(e.Payload)) > 0:
		s = show(m.Method.Of(e.Payload))
	}
	if m.HasSDP() {
		s += " SDP"
	}
	return s
}

// paint is the colour of a message: requests bold, replies by their class.
func paint(m *sipmsg.Message) string {
	switch {
	case m.Status == 0:
		return "\x1b[1m"
	case m.Status < 200:
		return "\x1b[36m"
	case m.Status < 300:
		return "\x1b[32m"
	case m.Status < 400:
		return "\x1b[33m"
	}
	return "\x1b[31m"
}

// eventJSON is an event with the names of the table's columns.
func eventJSON(e *trace.Event, m *sipmsg.Message) map[string]any {
	b := e.Payload
	v := map[string]any{
		"event_id": e.ID.String(), "time_stamp": e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		"callid": string(m.CallID.Of(b)), "method": string(m.EventMethod(b)), "status": "",
		"fromip": e.Transport.String() + ":" + e.Src.String(), "toip": e.Transport.String() + ":" + e.Dst.String(),
		"fromtag": string(m.FromTag.Of(b)), "totag": string(m.ToTag.Of(b)), "direction": e.Direction.String(),
		"node": e.Agent.Name, "agent_id": e.Agent.ID, "transport": e.Transport.String(), "type": e.Type,
		"cseq": m.CSeqNumber, "correlation_id": string(e.CorrelationID),
		"from_user": string(m.FromUser.Of(b)), "to_user": string(m.ToUser.Of(b)), "ruri_user": string(m.RURIUser.Of(b)),
	}
	if m.Status != 0 {
		v["status"] = fmt.Sprint(m.Status)
	}
	if utf8.Valid(b) {
		v["msg"] = string(b)
	} else {
		v["msg_b64"] = b
	}
	return v
}
