package rules

import (
	"strconv"
	"strings"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A part is a word of a message that selectors look at.
type part uint8

const (
	method part = iota
	callID
	fromUser
	toUser
	ruriUser
	fromDomain
	toDomain
	ruriDomain
	parts // how many there are
)

// A message is an event as rules see it. What it returns are views of the
// event and of its own memory: valid until the next load. It is loaded again
// and again, and does not allocate once its memory has grown.
type message struct {
	event *trace.Event
	scan  *sipmsg.Message // nil where the event is no SIP
	words [parts]string
	agent string // capture id, in digits

	hash    uint64 // of the Call-ID, the same on every tap
	hashed  bool
	headers headerState
	scratch []byte
}

// load makes m the message of e. A nil scan says that e is no SIP; then its
// correlation id stands for the Call-ID, so that logs and reports follow calls.
func (m *message) load(e *trace.Event, scan *sipmsg.Message, set *Set) {
	m.event, m.scan, m.hashed = e, scan, false
	m.headers.walked = false
	m.scratch = m.scratch[:0]
	m.words = [parts]string{}
	m.agent = ""
	if set.uses.agents {
		m.agent = m.number(uint64(e.Agent.ID))
	}
	b := e.Payload
	if scan == nil {
		m.words[callID] = view(e.CorrelationID)
		return
	}
	m.words[method] = m.upper(view(scan.EventMethod(b)))
	m.words[callID] = view(scan.CallID.Of(b))
	m.words[fromUser] = m.unescape(view(scan.FromUser.Of(b)))
	m.words[toUser] = m.unescape(view(scan.ToUser.Of(b)))
	m.words[ruriUser] = m.unescape(view(scan.RURIUser.Of(b)))
	if set.uses.domains {
		m.words[fromDomain] = m.domain(view(scan.FromHost.Of(b)))
		m.words[toDomain] = m.domain(view(scan.ToHost.Of(b)))
		m.words[ruriDomain] = m.domain(view(scan.RURIHost.Of(b)))
	}
}

// view is b as a string, for as long as b is what it is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// number is n in digits. Growing the scratch memory leaves earlier strings
// where they are.
func (m *message) number(n uint64) string {
	from := len(m.scratch)
	m.scratch = strconv.AppendUint(m.scratch, n, 10)
	return view(m.scratch[from:])
}

// upper is a method as the standard writes it.
func (m *message) upper(s string) string {
	for i := range len(s) {
		if c := s[i]; 'a' <= c && c <= 'z' {
			return m.folded(s, 'a', 'z')
		}
	}
	return s
}

// domain is a host in small letters and without the brackets of IPv6.
func (m *message) domain(s string) string {
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return m.folded(s, 'A', 'Z')
		}
	}
	return s
}

// folded is s with the letters from lo to hi in the other case.
func (m *message) folded(s string, lo, hi byte) string {
	from := len(m.scratch)
	m.scratch = append(m.scratch, s...)
	for i, c := range m.scratch[from:] {
		if lo <= c && c <= hi {
			m.scratch[from+i] = c ^ 0x20
		}
	}
	return view(m.scratch[from:])
}

// unescape reads the %41 of a user, which means the same as A.
func (m *message) unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	from := len(m.scratch)
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi < 16 && lo < 16 {
				m.scratch = append(m.scratch, hi<<4|lo)
				i += 2
				continue
			}
		}
		m.scratch = append(m.scratch, s[i])
	}
	return view(m.scratch[from:])
}

// unhex is the value of a hexadecimal digit, or 16.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 16
}

// share is where the call stands between 0 and 1, the same on every tap. A
// message without Call-ID is a call of its own.
func (m *message) share() float64 {
	if !m.hashed {
		if id := m.words[callID]; id != "" {
			m.hash = xxh3.HashString(id)
		} else {
			m.hash = xxh3.Hash(m.event.Payload)
		}
		m.hashed = true
	}
	return float64(m.hash>>11) / (1 << 53)
}
