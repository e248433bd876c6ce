package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/internal/ladder"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// SearchCmd is ctl search.
type SearchCmd struct {
	StoreFlags
	RangeFlags
	FilterFlags
	Limit int  `help:"The newest so many rows; 0 for all." default:"100"`
	JSON  bool `name:"json" help:"One object a row and line, keys named as the table's columns."`
	UTC   bool `name:"utc" help:"Show times in UTC instead of local time."`
}

// Help is the end of ctl search --help.
func (*SearchCmd) Help() string {
	return `Examples:
  ctl search --since 1h --user alice
  ctl search --from 08:00 --to-time 08:15 --addr 10.1.1.0/24 --method INVITE
  ctl search --store postgres://siptrace@db/siptrace --call-id 8f3c@pbx --json | jq -r .msg`
}

// Run lists the rows that match, the oldest first.
func (c *SearchCmd) Run(env *Env) error {
	q := trace.Query{Table: c.Table, Limit: c.Limit}
	var err error
	if q.From, q.To, err = c.bounds(time.Now()); err != nil {
		return err
	}
	if err := c.apply(&q); err != nil {
		return err
	}
	s, err := c.reader()
	if err != nil {
		return err
	}
	defer s.Close()
	list := newRowTable(env.Stdout, c.UTC)
	if c.JSON {
		list = newRowJSON(env.Stdout)
	}
	n := 0
	for row, err := range s.Rows(env, q) {
		if err != nil {
			return err
		}
		n++
		if err := list.row(&row); err != nil {
			return err
		}
	}
	if err := list.end(); err != nil {
		return err
	}
	switch {
	case n == 0 && !c.JSON:
		return none("messages", &c.RangeFlags)
	case n == c.Limit && !c.JSON:
		fmt.Fprintf(env.Stderr, "the newest %d; more with --limit\n", n)
	}
	return nil
}

// A rowList writes rows.
type rowList struct {
	row func(*store.Row) error
	end func() error
}

// newRowTable writes rows for people.
func newRowTable(w io.Writer, utc bool) rowList {
	loc := time.Local
	if utc {
		loc = time.UTC
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	first := true
	return rowList{
		row: func(r *store.Row) error {
			if first {
				fmt.Fprintln(t, "TIME\tMESSAGE\tFROM\tTO\tFROM USER\tTO USER\tTRACED\tNODE\tCALL-ID")
				first = false
			}
			_, err := fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
				r.Time.In(loc).Format("2006-01-02 15:04:05.000000"), what(r),
				show(r.FromIP), show(r.ToIP), show(r.FromUser), show(r.ToUser), show(r.TracedUser), show(r.Node), show(r.CallID))
			return err
		},
		end: t.Flush,
	}
}

// what is a row's message in a word or two: "INVITE", "180 INVITE".
func what(r *store.Row) string {
	switch {
	case len(r.Status) > 0:
		return show(r.Status) + " " + show(r.Method)
	case len(r.Method) > 0:
		return show(r.Method)
	}
	return "?"
}

func show(b []byte) string { return ladder.Printable(b) }

// A jsonRow is a row with the names of its columns.
type jsonRow struct {
	ID            int64   `json:"id"`
	TimeStamp     string  `json:"time_stamp"`
	TimeUS        int32   `json:"time_us"`
	CallID        string  `json:"callid"`
	TracedUser    string  `json:"traced_user"`
	Msg           *string `json:"msg,omitempty"`
	MsgB64        []byte  `json:"msg_b64,omitempty"`
	Method        string  `json:"method"`
	Status        string  `json:"status"`
	FromIP        string  `json:"fromip"`
	ToIP          string  `json:"toip"`
	FromTag       string  `json:"fromtag"`
	ToTag         string  `json:"totag"`
	Direction     string  `json:"direction"`
	EventID       string  `json:"event_id"`
	Node          string  `json:"node"`
	Transport     string  `json:"transport"`
	CSeq          int64   `json:"cseq"`
	CorrelationID string  `json:"correlation_id"`
	FromUser      string  `json:"from_user"`
	ToUser        string  `json:"to_user"`
	RURIUser      string  `json:"ruri_user"`
}

// newRowJSON writes an object for each row.
func newRowJSON(w io.Writer) rowList {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return rowList{
		row: func(r *store.Row) error { return enc.Encode(toJSON(r)) },
		end: func() error { return nil },
	}
}

func toJSON(r *store.Row) jsonRow {
	v := jsonRow{
		ID: r.ID, TimeStamp: r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), TimeUS: r.TimeUS(),
		CallID: string(r.CallID), TracedUser: string(r.TracedUser), Method: string(r.Method), Status: string(r.Status),
		FromIP: string(r.FromIP), ToIP: string(r.ToIP), FromTag: string(r.FromTag), ToTag: string(r.ToTag),
		Direction: r.Direction.String(), EventID: r.EventID.String(), Node: string(r.Node), Transport: r.Transport.String(),
		CSeq: r.CSeq, CorrelationID: string(r.CorrelationID),
		FromUser: string(r.FromUser), ToUser: string(r.ToUser), RURIUser: string(r.RURIUser),
	}
	if utf8.Valid(r.Msg) {
		s := string(r.Msg)
		v.Msg = &s
	} else {
		v.MsgB64 = r.Msg
	}
	return v
}
