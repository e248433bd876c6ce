// Package ladder draws a call as text: one column for each address, one line
// for each message, time going down.
//
//	                     10.0.0.1:5060          10.0.0.2:5060
//	20:15:03.120               │──── INVITE SDP ────►│
//	20:15:03.121    +0.001     │◄────── 100 ─────────│
package ladder

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// Options change how a ladder looks. The zero value is times in UTC and no
// message texts.
type Options struct {
	Location *time.Location // nil is UTC
	Raw      bool           // the messages themselves below the ladder
}

// timeFormat shows milliseconds; more is in the database.
const timeFormat = "15:04:05.000"

// Draw writes the ladder of events, which are in time order, to w.
func Draw(w io.Writer, events []trace.Event, o Options) error {
	if o.Location == nil {
		o.Location = time.UTC
	}
	out := bufio.NewWriter(w)
	l := newLadder(events)
	l.heading(out)
	for i := range l.steps {
		l.step(out, i, o.Location)
	}
	if o.Raw {
		raw(out, events, o.Location)
	}
	return out.Flush()
}

// ladder is a call laid out: which column each message starts and ends in.
type ladder struct {
	columns []netip.AddrPort
	width   int // from the middle of one column to the middle of the next
	steps   []step
}

type step struct {
	time     time.Time
	from, to int
	label    string
}

func newLadder(events []trace.Event) *ladder {
	l := &ladder{width: 20}
	seen := make(map[xxh3.Uint128]bool)
	for i := range events {
		e := &events[i]
		s := step{time: e.Time, from: l.column(e.Src), to: l.column(e.Dst), label: label(e)}
		if key := sameMessage(e); seen[key] {
			s.label += " (retransmission)"
		} else {
			seen[key] = true
		}
		l.steps = append(l.steps, s)
		if across := max(s.from, s.to) - min(s.from, s.to); across > 0 {
			l.width = max(l.width, (utf8.RuneCountInString(s.label)+8)/across)
		}
	}
	for _, c := range l.columns {
		l.width = max(l.width, len(address(c))+2)
	}
	return l
}

// column returns the place of an address, which it gets when it first appears.
func (l *ladder) column(a netip.AddrPort) int {
	for i, c := range l.columns {
		if c == a {
			return i
		}
	}
	l.columns = append(l.columns, a)
	return len(l.columns) - 1
}

// sameMessage is equal for a message and its retransmissions: same bytes
// between the same addresses.
func sameMessage(e *trace.Event) xxh3.Uint128 {
	return xxh3.Hash128Seed(e.Payload, xxh3.HashString(e.Src.String()+">"+e.Dst.String()))
}

// label is what stands on the arrow: the method, or the status and its reason.
func label(e *trace.Event) string {
	if e.Type != trace.TypeSIP {
		if e.Type == trace.TypeLog {
			return "log: " + short(e.Payload, 60)
		}
		return "HEP type " + strconv.Itoa(int(e.Type))
	}
	var m sipmsg.Message
	sipmsg.Scan(&m, e.Payload)
	s := ""
	switch {
	case m.Status != 0:
		s = strings.TrimSpace(strconv.Itoa(m.Status) + " " + short(m.Reason.Of(e.Payload), 24))
	case len(m.Method.Of(e.Payload)) > 0:
		s = short(m.Method.Of(e.Payload), 24)
	default:
		s = "? " + short(e.Payload, 24)
	}
	if m.HasSDP() {
		s += " SDP"
	}
	return s
}

// short is the first line of a text, at most n characters of it.
func short(b []byte, n int) string {
	line, _, _ := strings.Cut(string(b[:min(len(b), 1024)]), "\n")
	r := []rune(Printable([]byte(strings.TrimSpace(line))))
	if len(r) > n {
		r = append(r[:n-1], '…')
	}
	return string(r)
}

const (
	timeWidth  = len(timeFormat)
	deltaWidth = 10
	margin     = timeWidth + deltaWidth
)

// heading names the columns, each name over the middle of its line.
func (l *ladder) heading(w *bufio.Writer) {
	line := []rune(strings.Repeat(" ", margin))
	for i, c := range l.columns {
		name := address(c)
		from := max(l.middle(i)-len(name)/2, len(line)+1)
		for len(line) < from {
			line = append(line, ' ')
		}
		line = append(line, []rune(name)...)
	}
	fmt.Fprintln(w, string(line))
}

// middle is where the line of column i stands.
func (l *ladder) middle(i int) int { return margin + l.width/2 + i*l.width }

// step draws message i.
func (l *ladder) step(w *bufio.Writer, i int, loc *time.Location) {
	s := l.steps[i]
	line := []rune(fmt.Sprintf("%-*s%*s", timeWidth, s.time.In(loc).Format(timeFormat), deltaWidth, l.delta(i)))
	for len(line) <= l.middle(len(l.columns)-1) {
		line = append(line, ' ')
	}
	for c := range l.columns {
		line[l.middle(c)] = '│'
	}
	if s.from == s.to {
		line = over(line, l.middle(s.from)+1, []rune("↩ "+s.label+" "))
	} else {
		l.arrow(line, s)
	}
	fmt.Fprintln(w, strings.TrimRight(string(line), " "))
}

// over writes text over line from column at, and makes the line longer if need be.
func over(line []rune, at int, text []rune) []rune {
	for len(line) < at+len(text) {
		line = append(line, ' ')
	}
	copy(line[at:], text)
	return line
}

// delta is the time since the message before; the first has none.
func (l *ladder) delta(i int) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("%+.3f", l.steps[i].time.Sub(l.steps[i-1].time).Seconds())
}

// arrow draws the line between two columns with the label in the middle.
func (l *ladder) arrow(line []rune, s step) {
	left, right := l.middle(min(s.from, s.to)), l.middle(max(s.from, s.to))
	for x := left + 1; x < right; x++ {
		line[x] = '─'
	}
	if s.to > s.from {
		line[right-1] = '►'
	} else {
		line[left+1] = '◄'
	}
	text := []rune(" " + s.label + " ")
	copy(line[(left+right+1-len(text))/2:], text)
}

// address is how a column is called; an unknown one is "?".
func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return "?"
	}
	return a.String()
}

// raw writes the messages one below the other.
func raw(w *bufio.Writer, events []trace.Event, loc *time.Location) {
	for i := range events {
		e := &events[i]
		fmt.Fprintf(w, "\n── %d ── %s ── %s %s → %s ──\n", i+1,
			e.Time.In(loc).Format("2006-01-02 15:04:05.000000 MST"), e.Transport, address(e.Src), address(e.Dst))
		text := strings.ReplaceAll(string(e.Payload), "\r\n", "\n")
		for line := range strings.Lines(text) {
			fmt.Fprintln(w, Printable([]byte(strings.TrimSuffix(line, "\n"))))
		}
	}
}

// Printable returns b with everything that could move a terminal's cursor, or
// is no UTF-8, written as \xNN. Tabs stay.
func Printable(b []byte) string {
	clean := true
	for i := 0; i < len(b) && clean; {
		r, n := utf8.DecodeRune(b[i:])
		clean = printable(r, n)
		i += n
	}
	if clean {
		return string(b)
	}
	var s strings.Builder
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if printable(r, n) {
			s.WriteRune(r)
		} else {
			for _, c := range b[i : i+n] {
				fmt.Fprintf(&s, `\x%02x`, c)
			}
		}
		i += n
	}
	return s.String()
}

func printable(r rune, size int) bool {
	if r == utf8.RuneError && size <= 1 {
		return false
	}
	return r == '\t' || strconv.IsPrint(r)
}
