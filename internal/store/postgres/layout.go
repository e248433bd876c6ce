package postgres

import (
	"fmt"
	"slices"
	"strings"
)

// A layout is a set of columns that rows can be written to.
type layout uint8

const (
	own      layout = iota // as schema/postgres makes it
	kamailio               // as Kamailio's own script makes it
)

// A column is one of a table as the catalogue has it.
type column struct {
	name     string
	typ      string // without length: "character varying"
	length   int    // of character varying; 0 is any
	notNull  bool
	supplied bool // by a default, a sequence or a generator
}

// ownColumns are the columns of a trace table and their types, in the order of the COPY.
var ownColumns = [...][2]string{
	{"id", "bigint"}, {"time_stamp", "timestamp with time zone"}, {"time_us", "integer"}, {"callid", "text"}, {"traced_user", "text"},
	{"msg", "bytea"}, {"method", "text"}, {"status", "text"}, {"fromip", "text"}, {"toip", "text"}, {"fromtag", "text"}, {"totag", "text"},
	{"direction", "text"}, {"event_id", "uuid"}, {"node", "text"}, {"transport", "text"}, {"cseq", "bigint"}, {"correlation_id", "text"},
	{"from_user", "text"}, {"to_user", "text"}, {"ruri_user", "text"},
}

// kamailioColumns are those of Kamailio's sip_trace, but for id, which its
// sequence supplies. The texts have a length.
var kamailioColumns = [...][2]string{
	{"time_stamp", "timestamp without time zone"}, {"time_us", "integer"}, {"callid", varchar}, {"traced_user", varchar}, {"msg", "text"},
	{"method", varchar}, {"status", varchar}, {"fromip", varchar}, {"toip", varchar}, {"fromtag", varchar}, {"totag", varchar},
	{"direction", varchar},
}

const varchar = "character varying"

// recognize tells which layout columns have, and the lengths of Kamailio's, or what differs from siptrace's.
func recognize(columns []column) (layout, lengths, error) {
	differences := compare(columns, ownColumns[:])
	if len(differences) == 0 {
		return own, lengths{}, nil
	}
	if len(compare(columns, kamailioColumns[:])) == 0 {
		return kamailio, lengthsOf(columns), nil
	}
	return 0, lengths{}, fmt.Errorf("columns differ from sip_trace's: %s", strings.Join(differences, "; "))
}

// compare lists why rows with the wanted columns cannot be written.
func compare(columns []column, want [][2]string) []string {
	var list []string
	for _, w := range want {
		i := slices.IndexFunc(columns, func(c column) bool { return c.name == w[0] })
		switch {
		case i < 0:
			list = append(list, w[0]+" is missing")
		case columns[i].typ != w[1]:
			list = append(list, w[0]+" is "+columns[i].typ+", not "+w[1])
		}
	}
	for _, c := range columns {
		known := slices.ContainsFunc(want, func(w [2]string) bool { return w[0] == c.name })
		if !known && c.notNull && !c.supplied {
			list = append(list, c.name+" has no default")
		}
	}
	return list
}

// names is the column list of the COPY.
func (l layout) names() string {
	columns := ownColumns[:]
	if l == kamailio {
		columns = kamailioColumns[:]
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c[0]
	}
	return strings.Join(names, ", ")
}

// lengths are how many characters Kamailio's columns take.
type lengths struct {
	callID, tracedUser, method, status, fromIP, toIP, fromTag, toTag, direction int
}

func lengthsOf(columns []column) lengths {
	var l lengths
	for _, c := range columns {
		switch c.name {
		case "callid":
			l.callID = c.length
		case "traced_user":
			l.tracedUser = c.length
		case "method":
			l.method = c.length
		case "status":
			l.status = c.length
		case "fromip":
			l.fromIP = c.length
		case "toip":
			l.toIP = c.length
		case "fromtag":
			l.fromTag = c.length
		case "totag":
			l.toTag = c.length
		case "direction":
			l.direction = c.length
		}
	}
	return l
}
