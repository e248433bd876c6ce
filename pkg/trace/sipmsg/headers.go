package sipmsg

import (
	"iter"
	"strings"
)

// Header returns the value of the first header field of that name, in b, the
// bytes that were scanned. Case does not matter, and a compact name is the same
// as the long one, either way round.
func (m *Message) Header(b []byte, name string) ([]byte, bool) {
	name = long(name)
	l := lines{b: m.Fields.Of(b), lf: -1}
	var f field
	for l.field(&f) {
		if f.name < f.nameEnd && sameName(l.b[f.name:f.nameEnd], name) {
			return l.b[f.value:f.valueEnd:f.valueEnd], true
		}
	}
	return nil, false
}

// sameName compares a header field's name with a long one.
func sameName(name []byte, want string) bool {
	if len(name) == 1 && len(want) > 1 {
		full := longOf(name[0])
		return len(full) == len(want) && strings.EqualFold(full, want)
	}
	return equalFold(name, want)
}

// Headers yields name and value of each header field of the message that b
// begins with, in order and as written. Lines without a colon are passed over.
func Headers(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		walk(b, yield)
	}
}

func walk(b []byte, yield func(name, value []byte) bool) {
	b = bounded(b)
	at := skipPadding(b)
	l := lines{b: b, pos: at, lf: -1}
	var m Message
	if at < len(b) && !m.startLine(b, at, l.next()) {
		l = lines{b: b, pos: at, lf: -1}
	}
	var f field
	for l.field(&f) {
		if f.name < f.nameEnd && !yield(b[f.name:f.nameEnd:f.nameEnd], b[f.value:f.valueEnd:f.valueEnd]) {
			return
		}
	}
}

// Unfold appends value to dst with each fold, and the white space round it, made one space.
func Unfold(dst, value []byte) []byte {
	start := len(dst)
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c != '\r' && c != '\n' {
			dst = append(dst, c)
			continue
		}
		for len(dst) > start && (dst[len(dst)-1] == ' ' || dst[len(dst)-1] == '\t') {
			dst = dst[:len(dst)-1]
		}
		dst = append(dst, ' ')
		i = skip(value, i, len(value)) - 1
	}
	return dst
}
