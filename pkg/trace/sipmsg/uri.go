package sipmsg

import "bytes"

// A scheme is what Scan needs to know about a URI's scheme.
type scheme uint8

const (
	noScheme    scheme = iota
	sipScheme          // sip and sips: user@host
	telScheme          // tel: a number
	otherScheme        // user@host if there is an @, //host if there are slashes
)

// readURI reads user and host of the URI b[lo:hi]. It returns false when the
// URI has no scheme, has a space inside, or has no host or more than one @
// where that matters.
func readURI(b []byte, lo, hi int) (user, host Span, ok bool) {
	ok = bytes.IndexByte(b[lo:hi], ' ') < 0
	kind, at := readScheme(b, lo, hi)
	switch kind {
	case noScheme:
		ok = false
	case telScheme:
		return span(at, at+wordLen(b[at:hi])), Span{}, ok
	case otherScheme:
		if bytes.HasPrefix(b[at:hi], []byte("//")) {
			at, kind = at+2, sipScheme
		}
	}
	sign := bytes.IndexByte(b[at:hi], '@')
	switch {
	case sign >= 0:
		var one bool
		user, host, one = userHost(b, at, at+sign, hi)
		return user, host, ok && one
	case kind == otherScheme:
		return Span{}, Span{}, ok
	}
	host = span(at, hostEnd(b, at, hi))
	return Span{}, host, ok && !host.Empty()
}

// userHost reads "user:password@host" with its @ at sign. Where more come, before the
// host has ended, the last one counts: an @ in a user should have been escaped.
func userHost(b []byte, at, sign, hi int) (user, host Span, ok bool) {
	ok = true
	end := hostEnd(b, sign+1, hi)
	for end < hi && b[end] == '@' {
		ok = false
		sign = end
		end = hostEnd(b, sign+1, hi)
	}
	userEnd := sign
	if i := bytes.IndexByte(b[at:sign], ':'); i >= 0 {
		userEnd = at + i
	}
	host = span(sign+1, end)
	return span(at, userEnd), host, ok && !host.Empty()
}

// readScheme tells the scheme of the URI b[lo:hi], and where what follows it begins.
func readScheme(b []byte, lo, hi int) (scheme, int) {
	n := bytes.IndexByte(b[lo:hi], ':')
	if n <= 0 {
		return noScheme, lo
	}
	s := b[lo : lo+n]
	switch at := lo + n + 1; {
	case equalFold(s, "sip"), equalFold(s, "sips"):
		return sipScheme, at
	case equalFold(s, "tel"):
		return telScheme, at
	case schemeName(s):
		return otherScheme, at
	}
	return noScheme, lo
}

// schemeName reports whether s can be the scheme of a URI.
func schemeName(s []byte) bool {
	for i, c := range s {
		if !letter(c) && (i == 0 || !digit(c) && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}

// maxIPv6 is more than an IPv6 address in brackets can take, with a zone. The bound
// keeps hostile URIs from being searched again and again to their end.
const maxIPv6 = 80

// hostEnd returns the end of the host that begins at i: a name, an IPv4 address, or an IPv6 address in brackets.
func hostEnd(b []byte, i, hi int) int {
	if i < hi && b[i] == '[' {
		if end := bytes.IndexByte(b[i:min(hi, i+maxIPv6)], ']'); end >= 0 {
			return i + end + 1
		}
	}
	for i < hi {
		switch b[i] {
		case ':', ';', '?', '/', ',', '>', '@', ' ', '\t', '\r', '\n':
			return i
		}
		i++
	}
	return i
}
