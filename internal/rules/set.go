package rules

import (
	mathbits "math/bits"
	"slices"
)

// MaxRules is how many rules a tap follows at a time.
const MaxRules = 512

// A Set is the rules that count at one time. It never changes.
type Set struct {
	rules       []*Rule // by name
	index       index   // the rules that have keys
	headers     headerTable
	first       []int   // by rule: the number of its first header test
	asksHeaders bool    // rules without keys are found by header fields
	rest        []int32 // all others, which are asked about every message
	dialogs     bits    // the rules that take what follows a message
	parties     bits    // of those, the ones that ask who calls whom
	uses        struct{ agents, domains bool }
}

// NewSet puts rules together. Beyond [MaxRules] they are left out, the last
// names first, and returned.
func NewSet(list []*Rule) (s *Set, left []*Rule) {
	s = &Set{rules: slices.Clone(list)}
	sortRules(s.rules)
	if len(s.rules) > MaxRules {
		s.rules, left = s.rules[:MaxRules], s.rules[MaxRules:]
	}
	s.dialogs, s.parties = make(bits, s.width()), make(bits, s.width())
	for i, r := range s.rules {
		s.uses.agents = s.uses.agents || r.agents != nil
		s.uses.domains = s.uses.domains || len(r.FromDomain)+len(r.ToDomain)+len(r.RURIDomain) > 0
		if r.dialog() {
			s.dialogs.set(i)
		}
		if r.parties() {
			s.parties.set(i)
		}
		s.find(int32(i), r)
	}
	return s, left
}

// find notes how rule i is to be found: by its keys, else by a header field.
func (s *Set) find(i int32, r *Rule) {
	asked := -1
	switch {
	case len(r.keys) > 0:
		for _, k := range r.keys {
			s.index.add(k, i)
		}
	case r.firstHeader() >= 0:
		asked = r.firstHeader()
		s.asksHeaders = true
	default:
		s.rest = append(s.rest, i)
	}
	s.first = append(s.first, len(s.headers.tests))
	for n, h := range r.headers {
		if n == asked {
			h.rule = i
		}
		s.headers.add(h)
	}
}

// Len is how many rules there are.
func (s *Set) Len() int { return len(s.rules) }

// width is how many words of 64 bits hold a bit for every rule.
func (s *Set) width() int { return (len(s.rules) + 63) / 64 }

// bits are a set of rules, by their number.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bits) clear(i int)    { b[i/64] &^= 1 << (i % 64) }

// any reports whether a rule is in b.
func (b bits) any() bool {
	for _, w := range b {
		if w != 0 {
			return true
		}
	}
	return false
}

// meets reports whether a rule is in both.
func (b bits) meets(other bits) bool {
	for i, w := range b {
		if w&other[i] != 0 {
			return true
		}
	}
	return false
}

// next is the first rule in b from number i on, or -1.
func (b bits) next(i int) int {
	for w := i / 64; w < len(b); w++ {
		rest := b[w]
		if w == i/64 {
			rest &= ^uint64(0) << (i % 64)
		}
		if rest != 0 {
			return w*64 + mathbits.TrailingZeros64(rest)
		}
	}
	return -1
}
