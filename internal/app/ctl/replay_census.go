package ctl

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A census counts events by what they are. Names that strangers invent fill it
// up to a bound; the rest are others.
type census struct {
	Events  int                      `json:"events"`
	First   time.Time                `json:"first,omitzero"` // by capture time
	Last    time.Time                `json:"last,omitzero"`
	Methods map[string]*methodCensus `json:"methods"`
	Tables  map[string]int           `json:"tables"`
	Agents  map[string]int           `json:"agents"`
}

// A methodCensus counts the messages of one method.
type methodCensus struct {
	Requests int    `json:"requests"`
	Replies  [6]int `json:"replies"` // by class: 1xx first
}

// maxNames is how many different names are counted each for itself.
const maxNames = 40

const otherNames = "(others)"

func newCensus() *census {
	return &census{Methods: make(map[string]*methodCensus), Tables: make(map[string]int), Agents: make(map[string]int)}
}

// add counts e, whose message is m.
func (c *census) add(e *trace.Event, m *sipmsg.Message) {
	c.Events++
	if c.First.IsZero() || e.Time.Before(c.First) {
		c.First = e.Time
	}
	if e.Time.After(c.Last) {
		c.Last = e.Time
	}
	method := c.method(e, m)
	if class := int(m.Status)/100 - 1; class >= 0 && class < len(method.Replies) {
		method.Replies[class]++
	} else {
		method.Requests++
	}
	addName(c.Tables, cmp.Or(e.Table, "(default)"))
	agent := e.Agent.Name
	if agent == "" {
		agent = strconv.FormatUint(uint64(e.Agent.ID), 10)
	}
	addName(c.Agents, agent)
}

func (c *census) method(e *trace.Event, m *sipmsg.Message) *methodCensus {
	name := m.EventMethod(e.Payload)
	if found, ok := c.Methods[string(name)]; ok && len(name) > 0 {
		return found
	}
	key := string(name)
	switch {
	case e.Type != trace.TypeSIP:
		key = "HEP type " + strconv.Itoa(int(e.Type))
	case key == "":
		key = "?"
	case len(c.Methods) >= maxNames:
		key = otherNames
	}
	if c.Methods[key] == nil {
		c.Methods[key] = new(methodCensus)
	}
	return c.Methods[key]
}

func addName(counts map[string]int, name string) {
	if _, ok := counts[name]; !ok && len(counts) >= maxNames {
		name = otherNames
	}
	counts[name]++
}

// print shows the census to people.
func (c *census) print(w io.Writer, utc bool) error {
	loc := time.Local
	if utc {
		loc = time.UTC
	}
	if c.Events == 0 {
		return nil
	}
	const layout = "2006-01-02 15:04:05.000000"
	fmt.Fprintf(w, "captured  %s to %s\n\n", c.First.In(loc).Format(layout), c.Last.In(loc).Format(layout+" MST"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "METHOD\tREQUESTS\t1xx\t2xx\t3xx\t4xx\t5xx\t6xx")
	for _, name := range slices.Sorted(maps.Keys(c.Methods)) {
		m := c.Methods[name]
		fmt.Fprintf(t, "%s\t%s", show([]byte(name)), count(m.Requests))
		for _, n := range m.Replies {
			fmt.Fprintf(t, "\t%s", count(n))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printNames(w, "TABLE", c.Tables); err != nil {
		return err
	}
	return printNames(w, "AGENT", c.Agents)
}

func printNames(w io.Writer, title string, counts map[string]int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\n%s\tEVENTS\n", title)
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(t, "%s\t%s\n", show([]byte(name)), count(counts[name]))
	}
	return t.Flush()
}

// count is a number for people: 1,234,567.
func count[N ~int | ~int64 | ~uint64](n N) string { return humanize.Comma(int64(n)) }

// counted is a number of things: "1 event", "12,345 events".
func counted[N ~int | ~int64 | ~uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}
