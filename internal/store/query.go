package store

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Dialect is what differs between databases in the query for rows.
type Dialect struct {
	Columns string                // the select list, in the order that the database's reader of rows has
	Param   string                // what precedes the number of a parameter: "$" or "?"
	Fence   string                // ends a subquery that must not be merged into the query around it
	Time    func(t time.Time) any // a time as a parameter
	EventID func(id trace.ID) any // an event id as a parameter
}

// A Page is one query: at most Size rows in the order of the primary key,
// that come after the row After.
type Page struct {
	Query trace.Query
	After *Key // nil for the first page
	Desc  bool // newest first
	Size  int

	// Events widens the match to all rows of an event of which one matches.
	Events bool
}

// SQL returns the query for the page in table, which is quoted already, and its parameters.
func (p *Page) SQL(d *Dialect, table string) (query string, args []any) {
	c := conditions{dialect: d}
	c.times(p.Query.From, p.Query.To)
	if id := p.Query.CallID; id != "" {
		c.add("t.callid = %s", Text(id))
	}
	if method := p.Query.Method; method != "" {
		c.add("t.method = %s", Text(method))
	}
	if user := p.Query.User; user != "" {
		c.user(table, Text(user), p.Events)
	}
	if pattern := addrPattern(p.Query); pattern != "" {
		c.add("(t.fromip LIKE %[1]s OR t.toip LIKE %[1]s)", pattern)
	}
	order := ""
	sign := ">"
	if p.Desc {
		order, sign = " DESC", "<"
	}
	if k := p.After; k != nil {
		c.add("(t.time_stamp, t.event_id, t.traced_user) "+sign+" (%s, %s, %s)", d.Time(k.Time), d.EventID(k.EventID), k.TracedUser)
	}

	query = "SELECT " + d.Columns + " FROM " + table + " AS t" + c.where()
	if p.Query.CallID != "" {
		// Kept apart, so that no planner walks the primary key through all
		// of time in the hope of a row with this Call-ID.
		query = "SELECT " + d.Columns + " FROM (SELECT * FROM " + table + " AS t" + c.where() + d.Fence + ") AS t"
	}
	query += " ORDER BY t.time_stamp" + order + ", t.event_id" + order + ", t.traced_user" + order + " LIMIT " + strconv.Itoa(p.Size)
	return query, c.args
}

// conditions gathers what a row has to meet.
type conditions struct {
	dialect *Dialect
	terms   []string
	args    []any
}

// add appends a condition; each verb of term stands for a parameter.
func (c *conditions) add(term string, args ...any) {
	names := make([]any, len(args))
	for i, arg := range args {
		c.args = append(c.args, arg)
		names[i] = c.dialect.Param + strconv.Itoa(len(c.args))
	}
	c.terms = append(c.terms, fmt.Sprintf(term, names...))
}

func (c *conditions) times(from, to time.Time) {
	if !from.IsZero() {
		c.add("t.time_stamp >= %s", c.dialect.Time(from))
	}
	if !to.IsZero() {
		c.add("t.time_stamp < %s", c.dialect.Time(to))
	}
}

func (c *conditions) user(table, user string, events bool) {
	if !events {
		c.add("(t.from_user = %[1]s OR t.to_user = %[1]s OR t.ruri_user = %[1]s OR t.traced_user = %[1]s)", user)
		return
	}
	c.add("(t.from_user = %[1]s OR t.to_user = %[1]s OR t.ruri_user = %[1]s OR EXISTS (SELECT 1 FROM "+table+" AS u"+
		" WHERE u.time_stamp = t.time_stamp AND u.event_id = t.event_id AND u.traced_user = %[1]s"+c.dialect.Fence+"))", user)
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// addrPattern returns a LIKE pattern that the addresses wanted match, and
// perhaps others: [matches] has the last word. Only IPv4 has one text for one
// address, so only its whole octets make a pattern.
func addrPattern(q trace.Query) string {
	prefix := unmap(q.Addr)
	if !prefix.IsValid() || !prefix.Addr().Is4() || prefix.Bits() < 8 {
		return ""
	}
	octets := strings.Split(prefix.Addr().String(), ".")
	n := prefix.Bits() / 8
	if n == 4 {
		return "%:" + prefix.Addr().String() + ":%"
	}
	return "%:" + strings.Join(octets[:n], ".") + ".%"
}

// matches reports whether q's address and port fit a side of r.
func matches(q trace.Query, r *Row) bool {
	if !q.Addr.IsValid() && q.Port == 0 {
		return true
	}
	_, src := parseAddr(r.FromIP)
	_, dst := parseAddr(r.ToIP)
	return sideMatches(q, src) || sideMatches(q, dst)
}

func sideMatches(q trace.Query, a netip.AddrPort) bool {
	if q.Port != 0 && q.Port != a.Port() {
		return false
	}
	return !q.Addr.IsValid() || unmap(q.Addr).Contains(a.Addr().Unmap().WithZone(""))
}

// unmap returns a prefix of IPv4 addresses written as IPv6 as one of IPv4.
func unmap(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p
}
