package parity

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A difference is one that siptrace makes on purpose. It changes the rows that
// Kamailio wrote into those that siptrace writes.
type difference struct {
	name, why string
	apply     func(rows []row) (changed []row, n int)
}

// differences are all of them. Besides, the column id is made of time and event
// id instead of a sequence, and time_stamp carries a time zone and the
// microseconds that are in time_us as well.
var differences = []difference{
	{
		"totag",
		"Kamailio leaves it empty in replies and ACKs of its own making, though the message has a tag",
		each(func(r *row) bool {
			tag := tagOf(r.Msg)
			if r.ToTag != "" || tag == "" {
				return false
			}
			r.ToTag = tag
			return true
		}),
	},
	{
		"transport of relayed replies",
		"Kamailio writes that of the leg the reply came on in front of the address it goes out from",
		each(func(r *row) bool {
			from, rest, _ := strings.Cut(r.FromIP, ":")
			to, _, _ := strings.Cut(r.ToIP, ":")
			if r.Direction != "out" || r.Status == "" || from == to {
				return false
			}
			r.FromIP = to + ":" + rest
			return true
		}),
	},
	{
		"one row for a user",
		"From and To of one user gave two rows that were equal in every column",
		func(rows []row) ([]row, int) {
			var once []row
			for _, r := range rows {
				if !slices.Contains(once, r) {
					once = append(once, r)
				}
			}
			return once, len(rows) - len(once)
		},
	},
}

// each changes rows one by one.
func each(change func(r *row) bool) func(rows []row) ([]row, int) {
	return func(rows []row) ([]row, int) {
		rows, n := slices.Clone(rows), 0
		for i := range rows {
			if change(&rows[i]) {
				n++
			}
		}
		return rows, n
	}
}

// toLine is the To of a message. The recordings have it unfolded.
var toLine = regexp.MustCompile(`(?mi)^(?:To|t)[ \t]*:[^\r\n]*;tag=([^;\r\n \t]+)`)

// tagOf is the To tag of a message, found without siptrace's own scanner.
func tagOf(msg string) string {
	head, _, _ := strings.Cut(msg, "\r\n\r\n")
	if m := toLine.FindStringSubmatch(head); m != nil {
		return m[1]
	}
	return ""
}

// expected are the rows that siptrace writes where Kamailio wrote some. It fails
// the test unless each difference changes as many rows as it is known to.
func expected(t testing.TB, kamailio []row, known map[string]int) []row {
	t.Helper()
	for _, d := range differences {
		n := 0
		if kamailio, n = d.apply(kamailio); n != known[d.name] {
			t.Errorf("%d rows differ in %q (%s), want %d", n, d.name, d.why, known[d.name])
		}
	}
	return kamailio
}
