package sipmsg

import "bytes"

// An address is what From and To hold.
//
//	"Bob" <sip:bob@example.com;transport=tcp>;tag=8321234356
//	sip:bob@example.com;tag=8321234356
type address struct {
	uri, user, host, tag Span
}

// address reads the From or To value b[lo:hi].
func (m *Message) address(b []byte, lo, hi int) address {
	var at, end, rest int
	if open := m.angle(b, lo, hi); open >= 0 {
		at, end, rest = m.bracketed(b, open, hi)
	} else {
		at, end = lo, lo+wordLen(b[lo:hi])
		rest = end
	}
	var a address
	ok := false
	a.uri = span(at, end)
	if a.user, a.host, ok = readURI(b, at, end); !ok {
		m.Flags |= OddAddress
	}
	tag, flags := param(b, rest, hi, "tag", OddAddress)
	a.tag = tag
	m.Flags |= flags
	return a
}

// bracketed gives the bounds of the URI behind the bracket at open, and where
// the parameters begin. Without a closing bracket the URI ends at a semicolon.
func (m *Message) bracketed(b []byte, open, hi int) (at, end, rest int) {
	at = open + 1
	if i := bytes.IndexByte(b[at:hi], '>'); i >= 0 {
		end, rest = at+i, at+i+1
	} else {
		m.Flags |= OddAddress
		end = at + wordLen(b[at:hi])
		rest = end
	}
	lo, to := trim(b, at, end)
	if lo != at || to != end {
		m.Flags |= OddAddress
	}
	return lo, to, rest
}

// wordLen is the length of s up to a semicolon or white space.
func wordLen(s []byte) int {
	for i, c := range s {
		if c == ';' || blank(c) {
			return i
		}
	}
	return len(s)
}

// angle finds the bracket that opens the URI, which one inside a quoted name
// does not. It returns -1 when there is none.
func (m *Message) angle(b []byte, lo, hi int) int {
	if lo < hi && b[lo] == '<' {
		return lo
	}
	open := lo - 1
	for i := lo; i < hi; {
		if open < i {
			next := bytes.IndexByte(b[i:hi], '<')
			if next < 0 {
				return -1
			}
			open = i + next
		}
		quote := bytes.IndexByte(b[i:open], '"')
		if quote < 0 {
			if i == lo && !words(b[lo:open]) {
				m.Flags |= OddAddress
			}
			return open
		}
		end := closing(b, i+quote, hi)
		if end < 0 {
			m.Flags |= UnbalancedQuote
			return open
		}
		i = end + 1
	}
	return -1
}

// words reports whether a display name is made of tokens, as it must be when it is not quoted.
func words(name []byte) bool {
	for _, c := range name {
		if !tokenByte(c) && !blank(c) {
			return false
		}
	}
	return true
}

// closing returns the offset of the quotation mark that closes the one at i, or -1.
func closing(b []byte, i, hi int) int {
	for i++; i < hi; i++ {
		switch b[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}
