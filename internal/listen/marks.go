package listen

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// The bounds of what the marks of one event may say. Rules have those of users
// and destinations, too.
const (
	maxUsers        = 32
	maxDestinations = 16
	maxUser         = 255 // bytes
	maxDestination  = 512
	maxTable        = 63
)

// A leftOut is a reason for which a mark did not get into its event.
type leftOut int

const (
	_               leftOut = iota
	leftUntrusted           // the input does not trust its senders
	leftTransport           // there is none of that number
	leftDirection           // likewise
	leftFlags               // flags that nobody knows
	leftTable               // no name at all, or too long for one
	leftUser                // empty, too long, or one too many
	leftDestination         // likewise
	numLeftOut
)

var leftOutLabels = [numLeftOut]string{
	leftUntrusted:   "not trusted",
	leftTransport:   "transport",
	leftDirection:   "direction",
	leftFlags:       "flags",
	leftTable:       "table",
	leftUser:        "user",
	leftDestination: "destination",
}

// String is the label of the metrics.
func (l leftOut) String() string { return leftOutLabels[l] }

// markCounters count marks that were left out of the events of one source.
type markCounters [numLeftOut]prometheus.Counter

// newMarkCounters registers them.
func newMarkCounters(reg prometheus.Registerer, url string) (*markCounters, error) {
	vec, err := register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "siptrace_tap_hep_marks_left_out_total",
		Help: "Marks (table, users, destinations and the like) that HEP senders set and that are not in the events, by reason.",
	}, []string{"source", "reason"}))
	if err != nil {
		return nil, err
	}
	c := new(markCounters)
	for l := leftUntrusted; l < numLeftOut; l++ {
		c[l] = vec.WithLabelValues(url, l.String())
	}
	return c, nil
}

// marking is what one source does with the marks that senders set: with
// siptrace's own chunks, which say what is to become of an event. It counts
// what is left out, and speaks of it.
type marking struct {
	trust bool
	count *markCounters
	bad   *complaints
	hint  func() // says once that there are marks, and that nobody is trusted
}

func newMarking(trust bool, url string, reg prometheus.Registerer, log *slog.Logger) (*marking, error) {
	count, err := newMarkCounters(reg, url)
	if err != nil {
		return nil, err
	}
	return &marking{
		trust: trust,
		count: count,
		bad:   newComplaints(log, "marks left out"),
		hint: sync.OnceFunc(func() {
			log.Info("senders set marks, which are left out", "try", "trust=1 if they are to choose table, users and destinations")
		}),
	}, nil
}

// leave counts a mark that is left out.
func (m *marking) leave(why leftOut) {
	m.count[why].Inc()
	m.bad.add(why.String(), netip.AddrPort{}, nil)
}

// marks reads the marks of packets. The lists of the events hold until reset.
type marks struct {
	*marking
	names trace.Names
	lists []string
}

func (m *marks) reset() {
	clear(m.lists)
	m.lists = m.lists[:0]
}

// read sets in e what siptrace's chunks say, if the sender is trusted. What is
// no good is left out, and never the event: a program may take the users it
// marks from messages, and nobody is to get out of the trace by a strange name.
//
// The id and the rule of an event are the tap's own to set.
func (m *marks) read(e *trace.Event, chunks []byte) {
	if !m.trust {
		m.refuse(chunks)
		return
	}
	users, destinations := 0, 0
	for c := range hep.Walk(chunks) {
		switch c.Type {
		case trace.ChunkTransport:
			m.transport(e, c.Body)
		case trace.ChunkDirection:
			m.direction(e, c.Body)
		case trace.ChunkFlags:
			m.flags(e, c.Body)
		case trace.ChunkTable:
			m.table(e, c.Body)
		case trace.ChunkTracedUser:
			users++
		case trace.ChunkDestination:
			destinations++
		}
	}
	if users > 0 {
		e.TracedUsers = m.list(chunks, trace.ChunkTracedUser, leftUser, maxUsers, maxUser)
	}
	if destinations > 0 {
		e.Destinations = m.list(chunks, trace.ChunkDestination, leftDestination, maxDestinations, maxDestination)
	}
	if len(e.TracedUsers) == 0 {
		e.Flags &^= trace.UsersOnly // a row without a user is better than none
	}
}

// refuse counts the packet if it has marks that are left out.
func (m *marks) refuse(chunks []byte) {
	for c := range hep.Walk(chunks) {
		if c.Type > trace.ChunkEventID && c.Type < trace.ChunkRule {
			m.count[leftUntrusted].Inc()
			m.hint()
			return
		}
	}
}

func (m *marks) transport(e *trace.Event, b []byte) {
	if len(b) != 1 || trace.Transport(b[0]).String() == "" {
		m.leave(leftTransport)
		return
	}
	e.Transport = trace.Transport(b[0])
}

func (m *marks) direction(e *trace.Event, b []byte) {
	if len(b) != 1 || trace.Direction(b[0]).String() == "" {
		m.leave(leftDirection)
		return
	}
	e.Direction = trace.Direction(b[0])
}

func (m *marks) flags(e *trace.Event, b []byte) {
	const known = trace.NoStore | trace.NoDuplicate | trace.Truncated | trace.UsersOnly
	if len(b) != 2 || trace.Flags(binary.BigEndian.Uint16(b))&^known != 0 {
		m.leave(leftFlags)
		return
	}
	e.Flags = trace.Flags(binary.BigEndian.Uint16(b))
}

// table takes a name of any letters: the writer looks at it more closely, and
// what it refuses is kept with the reason.
func (m *marks) table(e *trace.Event, b []byte) {
	if len(b) == 0 || len(b) > maxTable {
		m.leave(leftTable)
		return
	}
	e.Table = m.names.Of(b)
}

// list gathers the bodies of all chunks of a type, each once.
func (m *marks) list(chunks []byte, typ uint16, why leftOut, most, size int) []string {
	at := len(m.lists)
	for c := range hep.Walk(chunks) {
		switch {
		case c.Type != typ:
		case len(c.Body) == 0, len(c.Body) > size, len(m.lists)-at == most:
			m.leave(why)
		default:
			if s := m.names.Of(c.Body); !slices.Contains(m.lists[at:], s) {
				m.lists = append(m.lists, s)
			}
		}
	}
	if len(m.lists) == at {
		return nil
	}
	return m.lists[at:len(m.lists):len(m.lists)]
}
