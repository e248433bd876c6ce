package sipmsg

import "bytes"

// lines walks the lines of a header.
type lines struct {
	b     []byte
	pos   int  // where the next line begins
	lf    int  // the next LF at or after pos, len(b) when there is none; below pos when not looked up yet
	ended bool // the last line had a line end
	flags Flags
}

// next passes one line and returns where its text ends. The text begins where pos was.
//
// A CR that is the last byte of the input ends no line yet, for it may be half of a CRLF.
func (l *lines) next() int {
	if l.lf < l.pos {
		l.lf = len(l.b)
		if i := bytes.IndexByte(l.b[l.pos:], '\n'); i >= 0 {
			l.lf = l.pos + i
		}
	}
	at, lf := l.pos, l.lf
	cr := bytes.IndexByte(l.b[at:lf], '\r')
	l.ended = true
	switch {
	case cr >= 0 && at+cr == lf-1 && lf < len(l.b): // CRLF
		l.pos = lf + 1
		return lf - 1
	case cr >= 0:
		return l.bareCR(at + cr)
	case lf < len(l.b):
		l.flags |= BareLF
		l.pos = lf + 1
		return lf
	}
	l.ended = false
	l.pos = len(l.b)
	return l.pos
}

// bareCR passes the line that ends at the CR at i, which no LF follows at
// once. CRs up to an LF are one line end; other CRs are a line end each.
func (l *lines) bareCR(i int) int {
	run := i + 1
	for run < len(l.b) && l.b[run] == '\r' {
		run++
	}
	switch {
	case run == len(l.b):
		l.ended = false
		l.pos = run
		return i
	case l.b[run] == '\n':
		l.pos = run + 1
	default:
		l.pos = i + 1
	}
	l.flags |= BareCR
	return i
}

// A field is one header field: the bounds of its name and of its value, white
// space trimmed. A field without a colon has an empty name and an empty value.
type field struct {
	name, nameEnd   int
	value, valueEnd int
}

// field passes one header field. It returns false, with pos after the header,
// when there is none left.
func (l *lines) field(f *field) bool {
	at := l.pos
	if at >= len(l.b) {
		l.flags |= NoEnd
		return false
	}
	end := l.next()
	if end == at {
		if !l.ended {
			l.flags |= NoEnd
		}
		return false
	}
	colon := bytes.IndexByte(l.b[at:end], ':')
	for l.pos < len(l.b) && (l.b[l.pos] == ' ' || l.b[l.pos] == '\t') {
		l.flags |= Folded
		end = l.next()
	}
	if colon < 0 {
		l.flags |= NoColon
		*f = field{at, at, at, at}
		return true
	}
	f.name, f.nameEnd = trim(l.b, at, at+colon)
	f.value, f.valueEnd = trim(l.b, at+colon+1, end)
	return true
}

// blank tells the bytes that are white space in a header field, line ends included.
func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// trim takes white space off both ends of b[lo:hi].
func trim(b []byte, lo, hi int) (int, int) {
	for lo < hi && blank(b[lo]) {
		lo++
	}
	for lo < hi && blank(b[hi-1]) {
		hi--
	}
	return lo, hi
}

// skip passes white space from i on.
func skip(b []byte, i, hi int) int {
	for i < hi && blank(b[i]) {
		i++
	}
	return i
}

// broken reports whether a word holds a line end.
func broken(word []byte) bool {
	for _, c := range word {
		if c == '\r' || c == '\n' {
			return true
		}
	}
	return false
}
