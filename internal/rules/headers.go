package rules

import (
	"bytes"
	"slices"
	"strings"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A headerTest is one header field that one rule looks at.
type headerTest struct {
	name   string // in small letters
	values *words
	rule   int32 // to be asked when a value is there, or none
}

// headerTable are the tests of all rules, found by the names of header fields.
type headerTable struct {
	tests  []headerTest
	byName map[string]*namedTests // in small letters, long and compact
}

// namedTests are the tests of one header field.
type namedTests struct {
	byValue map[string][]int32 // those that want whole values alone
	others  []partTest
}

// A partTest is a test that is not to be found by a whole value.
type partTest struct {
	letters uint64 // that a value must have for the test to say anything
	n       int32
}

// letters are the bytes of s, near enough: what has others is not in s.
func letters(s string) uint64 {
	var set uint64
	for i := range len(s) {
		set |= 1 << (s[i] & 63)
	}
	return set
}

// add takes a test in and returns its number.
func (t *headerTable) add(h headerTest) int {
	if t.byName == nil {
		t.byName = make(map[string]*namedTests)
	}
	n := len(t.tests)
	t.tests = append(t.tests, h)
	named := t.byName[h.name]
	if named == nil {
		named = &namedTests{byValue: make(map[string][]int32)}
		for _, name := range spellings(h.name) {
			t.byName[name] = named
		}
	}
	named.add(int32(n), h.values)
	return n
}

func (t *namedTests) add(n int32, values *words) {
	keys := values.keys(0)
	part := func(k key) bool { return k.form != whole }
	if len(keys) == 0 || len(values.not) > 0 || slices.ContainsFunc(keys, part) {
		t.others = append(t.others, partTest{values.letters(), n})
		return
	}
	for _, k := range keys {
		t.byValue[k.text] = append(t.byValue[k.text], n)
	}
}

// headerName reports whether s can be the name of a header field, in full: its
// compact form is found with it.
func headerName(s string) bool {
	const others = "-.!%*_+`'~"
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return len(s) > 1 && len(s) <= maxHeaderName
}

const maxHeaderName = 64

// spellings are the ways to write a header field's name, in small letters. The
// scanner knows which letter stands for a name: it is shown a message that has
// them all.
func spellings(name string) []string {
	all := []byte("OPTIONS sip:a SIP/2.0\r\n")
	for c := 'a'; c <= 'z'; c++ {
		all = append(all, byte(c), ':', ' ', byte(c), '\r', '\n')
	}
	all = append(all, "\r\n"...)
	var m sipmsg.Message
	sipmsg.Scan(&m, all)
	out := []string{name}
	if letter, ok := m.Header(all, name); ok {
		out = append(out, string(letter))
	}
	return out
}

// headerState is what is known of the header fields of one message.
type headerState struct {
	walked   bool
	has, not []bool  // by number of the test
	asking   []int32 // rules that are to be asked because of a test
}

// header reports whether test n of t holds for m.
func (m *message) header(t *headerTable, n int) bool {
	m.walk(t)
	return !m.headers.not[n] && (m.headers.has[n] || t.tests[n].values.open())
}

// walk asks all tests about all header fields, once.
func (m *message) walk(t *headerTable) {
	h := &m.headers
	if h.walked {
		return
	}
	h.walked = true
	if cap(h.has) < len(t.tests) {
		h.has, h.not = make([]bool, len(t.tests)), make([]bool, len(t.tests))
	}
	h.has, h.not = h.has[:len(t.tests)], h.not[:len(t.tests)]
	clear(h.has)
	clear(h.not)
	h.asking = h.asking[:0]
	if m.scan == nil {
		return
	}
	for name, value := range sipmsg.Headers(m.event.Payload) {
		var small [maxHeaderName]byte
		if len(name) > len(small) {
			continue
		}
		for i, c := range name {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			small[i] = c
		}
		tests := t.byName[string(small[:len(name)])]
		if tests == nil {
			continue
		}
		text := m.unfold(value)
		for _, n := range tests.byValue[text] {
			h.found(t, n)
		}
		if len(tests.others) == 0 {
			continue
		}
		have := letters(text)
		for _, o := range tests.others {
			if o.letters&^have != 0 {
				continue
			}
			values := t.tests[o.n].values
			h.not[o.n] = h.not[o.n] || values.refuses(text)
			if values.has(text) {
				h.found(t, o.n)
			}
		}
	}
}

// found notes that a value of test n is there.
func (h *headerState) found(t *headerTable, n int32) {
	if !h.has[n] && t.tests[n].rule != none {
		h.asking = append(h.asking, t.tests[n].rule)
	}
	h.has[n] = true
}

// unfold makes a value one line.
func (m *message) unfold(value []byte) string {
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return view(value)
	}
	from := len(m.scratch)
	m.scratch = sipmsg.Unfold(m.scratch, value)
	return view(m.scratch[from:])
}
