package sipmsg

import (
	"bytes"
	"math"
)

// field takes note of one header field. Only a list may come more than once.
func (m *Message) field(b []byte, f *field) {
	k := kindOf(b[f.name:f.nameEnd])
	if k == kindOther {
		return
	}
	if m.seen&(1<<k) != 0 {
		if k != kindVia && k != kindUserAgent && k != kindServer {
			m.Flags |= Duplicate
		}
		return
	}
	lo, hi := f.value, f.valueEnd
	if lo == hi && k != kindContentLength {
		return // as good as absent
	}
	m.seen |= 1 << k
	switch k {
	case kindCallID:
		m.CallID = span(lo, hi)
		if bytes.IndexByte(b[lo:hi], ' ') >= 0 || bytes.IndexByte(b[lo:hi], '\t') >= 0 {
			m.Flags |= BadCallID
		}
	case kindCSeq:
		m.cseq(b, lo, hi)
	case kindFrom:
		a := m.address(b, lo, hi)
		m.FromURI, m.FromUser, m.FromHost, m.FromTag = a.uri, a.user, a.host, a.tag
	case kindTo:
		a := m.address(b, lo, hi)
		m.ToURI, m.ToUser, m.ToHost, m.ToTag = a.uri, a.user, a.host, a.tag
	case kindVia:
		m.via(b, lo, hi)
	case kindUserAgent:
		m.UserAgent = span(lo, hi)
	case kindServer:
		m.server = span(lo, hi)
	case kindContentType:
		m.ContentType = span(lo, hi)
	case kindContentLength:
		m.contentLength(b[lo:hi])
	}
}

// cseq reads "4711 INVITE".
func (m *Message) cseq(b []byte, lo, hi int) {
	i, n := lo, uint64(0)
	for i < hi && digit(b[i]) {
		n = min(n*10+uint64(b[i]-'0'), math.MaxUint32+1)
		i++
	}
	method := skip(b, i, hi)
	if i > lo && n <= math.MaxUint32 {
		m.CSeqNumber, m.HasCSeqNumber = uint32(n), true
	}
	if i == lo || n > math.MaxInt32 || method == i {
		m.Flags |= BadCSeq
	}
	if i == lo { // no number: the method may be the second word, or the only one
		if second := skip(b, method+textLen(b[method:hi]), hi); second < hi {
			method = second
		}
	}
	end := method + textLen(b[method:hi])
	m.CSeqMethod = span(method, end)
	if end != hi {
		m.Flags |= BadCSeq
	}
}

// textLen is the length of s up to white space.
func textLen(s []byte) int {
	for i, c := range s {
		if blank(c) {
			return i
		}
	}
	return len(s)
}

// contentLength reads the length of the body.
func (m *Message) contentLength(s []byte) {
	n := int64(0)
	for _, c := range s {
		if n = n*10 + int64(c) - '0'; !digit(c) || n > math.MaxInt32 {
			m.Flags |= BadLength
			return
		}
	}
	if len(s) == 0 {
		m.Flags |= BadLength
		return
	}
	m.ContentLength = int(n)
}
