package sipmsg

import "bytes"

// startLine reads the start line b[lo:hi]. It returns false, with NotSIP set,
// when that is none.
//
//	INVITE sip:bob@example.com SIP/2.0
//	SIP/2.0 200 OK
func (m *Message) startLine(b []byte, lo, hi int) bool {
	at, end := trim(b, lo, hi)
	if at != lo {
		m.Flags |= OddStartLine
	}
	switch {
	case isVersion(b[at:wordEnd(b, at, end)]):
		m.statusLine(b, at, end, hi)
		return true
	case m.requestLine(b, at, end):
		if end != hi {
			m.Flags |= OddStartLine
		}
		return true
	}
	m.Flags = NotSIP
	return false
}

// statusLine reads "SIP/2.0 200 OK", which ends at end and, with white space,
// at hi. The space before the reason must be there even if the reason is empty.
func (m *Message) statusLine(b []byte, lo, end, hi int) {
	m.Response = true
	i := wordEnd(b, lo, end)
	m.version(b[lo:i])
	at := m.gap(b, i, end)
	i = wordEnd(b, at, end)
	m.StatusText = span(at, i)
	if m.Status = status(b[at:i]); m.Status == 0 {
		m.Flags |= BadStatus
	}
	if i == hi || b[i] != ' ' || i == end && hi > end+1 {
		m.Flags |= OddStartLine
	}
	m.Reason = span(skip(b, i, end), end)
}

// status reads a code from 100 to 699; anything else is 0.
func status(s []byte) int {
	if len(s) != 3 || !digit(s[0]) || !digit(s[1]) || !digit(s[2]) || s[0] < '1' || s[0] > '6' {
		return 0
	}
	return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func letter(c byte) bool { return 'a' <= lower(c) && lower(c) <= 'z' }

// gap passes the single space between two words of the start line, or what
// else there is in its place.
func (m *Message) gap(b []byte, i, hi int) int {
	at := skip(b, i, hi)
	if at != i+1 || b[i] != ' ' {
		m.Flags |= OddStartLine
	}
	return at
}

// requestLine reads "INVITE sip:bob@example.com SIP/2.0". The last word is the
// version, the first the method, and what is between them the Request-URI.
// Without a version a line is still taken for a request if its second word is a
// SIP, SIPS or tel URI.
func (m *Message) requestLine(b []byte, lo, hi int) bool {
	method := wordEnd(b, lo, hi)
	at := skip(b, method, hi)
	last := hi
	for last > at && !blank(b[last-1]) {
		last--
	}
	ok := token(b[lo:method])
	var end int
	switch {
	case isVersion(b[last:hi]) && (ok || visible(b[lo:method])):
		m.version(b[last:hi])
		_, end = trim(b, at, last)
		if at < end {
			m.gap(b, end, hi)
		}
	case ok && knownScheme(b[at:hi]):
		m.Flags |= BadVersion | OddStartLine
		end = wordEnd(b, at, hi)
	default:
		return false
	}
	if m.gap(b, method, hi); !ok || at == end {
		m.Flags |= OddStartLine
	}
	m.Request = true
	m.Method = span(lo, method)
	m.requestURI(b, at, end)
	return true
}

// requestURI reads the Request-URI b[lo:hi].
func (m *Message) requestURI(b []byte, lo, hi int) {
	if hi-lo >= 2 && b[lo] == '<' && b[hi-1] == '>' {
		m.Flags |= OddStartLine
		lo, hi = trim(b, lo+1, hi-1)
	}
	m.RequestURI = span(lo, hi)
	user, host, ok := readURI(b, lo, hi)
	m.RURIUser, m.RURIHost = user, host
	if !ok || !host.Empty() && bytes.IndexByte(b[host.End():hi], '?') >= 0 {
		m.Flags |= OddRequestURI
	}
}

// version flags any version but 2.0.
func (m *Message) version(word []byte) {
	if !equalFold(word, "SIP/2.0") {
		m.Flags |= BadVersion
	}
}

// isVersion reports whether word is a SIP version: SIP/ and something that begins with a digit.
func isVersion(word []byte) bool {
	return len(word) > 4 && equalFold(word[:4], "SIP/") && digit(word[4])
}

// wordEnd returns the offset of the first white space at or after i.
func wordEnd(b []byte, i, hi int) int {
	for i < hi && b[i] != ' ' && b[i] != '\t' {
		i++
	}
	return i
}

// knownScheme reports whether s begins with a scheme that only telephony uses.
func knownScheme(s []byte) bool {
	i := bytes.IndexByte(s[:min(len(s), 5)], ':')
	return i > 0 && (equalFold(s[:i], "sip") || equalFold(s[:i], "sips") || equalFold(s[:i], "tel"))
}

// token reports whether s is a token of the SIP grammar.
func token(s []byte) bool {
	for _, c := range s {
		if !tokenByte(c) {
			return false
		}
	}
	return len(s) > 0
}

// tokenByte tells the bytes of a token: letters, digits and -.!%*_+`'~
func tokenByte(c byte) bool {
	switch c {
	case '-', '.', '!', '%', '*', '_', '+', '`', '\'', '~':
		return true
	}
	return digit(c) || letter(c)
}

// visible reports whether s begins as a token and goes on in visible ASCII, as
// a misspelt method does and what stands before SIP in other protocols does not.
func visible(s []byte) bool {
	for _, c := range s {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(s) > 0 && tokenByte(s[0])
}

// IsSIP reports whether b begins with a SIP start line, as Scan understands
// one, after any padding. It looks at the first line only.
func IsSIP(b []byte) bool {
	b = bounded(b)
	at := skipPadding(b)
	if at == len(b) || !tokenByte(b[at]) && !blank(b[at]) {
		return false
	}
	l := lines{b: b, pos: at, lf: -1}
	var m Message
	return m.startLine(b, at, l.next())
}
