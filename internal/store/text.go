package store

import (
	"bytes"
	"unicode/utf8"
)

// MaxText is the most bytes a text column holds. Longer values are cut: they
// are no use to anyone, and a database refuses to index them. The message
// itself is never cut.
const MaxText = 1024

// clean returns v as a text column takes it. A value that is fit already is
// returned as it is; another is written to buf, in which each NUL and each
// byte that is not UTF-8 becomes U+FFFD.
func clean(buf, v []byte) (grown, text []byte) {
	v = cut(v)
	if utf8.Valid(v) && bytes.IndexByte(v, 0) < 0 {
		return buf, v
	}
	start := len(buf)
	for len(v) > 0 {
		r, n := utf8.DecodeRune(v)
		if r == 0 {
			r = utf8.RuneError
		}
		buf = utf8.AppendRune(buf, r)
		v = v[n:]
	}
	return buf, cut(buf[start:len(buf):len(buf)])
}

// cut shortens v to MaxText bytes, not within a character.
func cut(v []byte) []byte {
	if len(v) <= MaxText {
		return v
	}
	end := MaxText
	for end > MaxText-utf8.UTFMax && !utf8.RuneStart(v[end]) {
		end--
	}
	return v[:end:end]
}

// Text returns s as it stands in a text column, for comparing with one.
func Text(s string) string {
	_, text := clean(nil, []byte(s))
	return string(text)
}
