// Package sipmsg finds where the fields of a SIP message are. It is made for
// tracing: it refuses no message, changes no byte, and allocates nothing.
//
// [Scan] goes through a message once and notes offsets and lengths, each a
// [Span] of the caller's bytes. What breaks the grammar is read as far as its
// meaning is plain, what cannot be read is left empty, and both are told by
// [Flags]. Of header fields of one name the first that is not empty counts.
//
// # Line ends and folding
//
// A line ends in CRLF; LF alone, CR alone and CR CR LF are understood too, and
// flagged. A header field goes on in the next line when that begins with a
// space or a tab. The spans of single words (methods, users, hosts, tags, the
// branch, Call-ID, numbers) never hold a line end: where a sender has folded a
// word in two, it counts as unread. The spans of whole values ([Message.FromURI],
// [Message.ToURI], [Message.UserAgent], [Message.ContentType], and those of
// [Message.Header] and [Headers]) are one stretch from the value's first to its
// last visible byte, with any line ends between them as they came; [Unfold]
// makes such a value one line.
package sipmsg

import "math"

// A Span is a stretch of a message.
type Span struct{ Off, Len uint32 }

// Of returns the bytes of b that s covers. b must be the slice that was scanned.
func (s Span) Of(b []byte) []byte { return b[s.Off : s.Off+s.Len : s.Off+s.Len] }

// Empty reports whether s covers nothing: the field is absent, empty or unread.
func (s Span) Empty() bool { return s.Len == 0 }

// End is the offset of the first byte after s.
func (s Span) End() int { return int(s.Off) + int(s.Len) }

// span makes a Span of b[lo:hi].
func span(lo, hi int) Span { return Span{uint32(lo), uint32(hi - lo)} }

// A Message says where the fields of one SIP message are. All spans are of the
// bytes given to Scan. The zero value is ready for Scan and may be used again.
type Message struct {
	Flags Flags

	// Request and Response tell the two apart; both are false when Flags has
	// NotSIP or KeepAlive.
	Request, Response bool
	// HasCSeqNumber reports whether CSeqNumber was read.
	HasCSeqNumber bool
	sdp           bool

	// Status is a response's code, 100 to 699, or 0 when it was not read;
	// StatusText is the word in its place, whatever it is.
	Status     int
	StatusText Span
	Reason     Span

	// Method is the start line's; empty in a response. See EventMethod.
	Method Span

	// RequestURI is as sent, without the angle brackets that do not belong there.
	RequestURI Span

	// Users are as sent: escapes stay escaped, parameters that are part of the
	// user stay with it, a password does not. The user of a tel URI is its
	// number. Hosts come without port; an IPv6 address keeps its brackets.
	RURIUser, RURIHost          Span
	FromURI, FromUser, FromHost Span
	ToURI, ToUser, ToHost       Span
	FromTag, ToTag              Span

	CallID     Span
	CSeqNumber uint32
	CSeqMethod Span

	// The topmost Via: the first value of the first Via field.
	ViaTransport, ViaHost, ViaBranch Span

	// UserAgent is the User-Agent of a request and the Server of a response,
	// or the other one where that is absent.
	UserAgent   Span
	ContentType Span

	// ContentLength is -1 when the field is absent or unreadable.
	ContentLength int

	// Start is where the start line begins: after line ends and NULs that
	// come before the message.
	Start int
	// Fields goes from the first header field to the end of the empty line.
	Fields Span
	// Body goes from after the empty line to End.
	Body Span
	// End is where this message ends. It is the end of the input unless a
	// Content-Length says that the message is shorter; what follows then is
	// another message only if IsSIP says so. End is above 0 for any input but
	// an empty one, so that a loop over messages comes to an end.
	End int

	server Span
	seen   uint32 // the header fields that have come by, by kind
}

// Scan finds the fields of the message that b begins with, and overwrites m.
// It never fails: see Flags for what it could not read. A message may have up to 4 GiB.
func Scan(m *Message, b []byte) {
	b = bounded(b)
	*m = Message{ContentLength: -1}
	m.Start = skipPadding(b)
	if m.Start == len(b) {
		m.Flags = KeepAlive
		m.End = len(b)
		m.Body = span(m.End, m.End)
		return
	}
	l := lines{b: b, pos: m.Start, lf: -1}
	if end := l.next(); !m.startLine(b, m.Start, end) {
		l = lines{b: b, pos: m.Start, lf: -1}
	}
	at := l.pos
	var f field
	for l.field(&f) {
		m.field(b, &f)
	}
	m.Fields = span(at, l.pos)
	m.Flags |= l.flags
	m.finish(b)
}

// bounded cuts b to what a Span can address.
func bounded(b []byte) []byte {
	if most := uint64(math.MaxUint32); uint64(len(b)) > most {
		b = b[:most]
	}
	return b
}

// skipPadding returns the offset of the first byte that is no line end and no NUL.
func skipPadding(b []byte) int {
	i := 0
	for i < len(b) && (b[i] == '\r' || b[i] == '\n' || b[i] == 0) {
		i++
	}
	return i
}

// finish settles what depends on all header fields.
func (m *Message) finish(b []byte) {
	if m.Flags&Folded != 0 {
		m.dropFolded(b)
	}
	if m.UserAgent.Empty() || m.Response && !m.server.Empty() {
		m.UserAgent = m.server
	}
	if m.Flags&NotSIP == 0 {
		m.missing()
	}
	if m.Request && !m.CSeqMethod.Empty() && string(m.CSeqMethod.Of(b)) != string(m.Method.Of(b)) {
		m.Flags |= CSeqMismatch
	}
	m.body(b)
}

// missing flags the mandatory header fields that are absent or empty.
func (m *Message) missing() {
	const all = 1<<kindCallID | 1<<kindCSeq | 1<<kindFrom | 1<<kindTo | 1<<kindVia
	if m.seen&all == all {
		return
	}
	for _, w := range [...]struct {
		k    kind
		flag Flags
	}{
		{kindCallID, MissingCallID}, {kindCSeq, MissingCSeq}, {kindFrom, MissingFrom},
		{kindTo, MissingTo}, {kindVia, MissingVia},
	} {
		if m.seen&(1<<w.k) == 0 {
			m.Flags |= w.flag
		}
	}
}

// body settles where the message ends, and whether it brings SDP.
func (m *Message) body(b []byte) {
	at := m.Fields.End()
	m.End = len(b)
	if m.ContentLength >= 0 && m.Flags&NotSIP == 0 {
		switch left := len(b) - at; {
		case m.ContentLength > left:
			m.Flags |= ShortBody
		case m.Flags&NoEnd == 0:
			m.End = at + m.ContentLength
		}
	}
	m.Body = span(at, m.End)
	m.sdp = carriesSDP(m.ContentType.Of(b), m.Body.Of(b))
}

// dropFolded empties the words that a sender has folded in two.
func (m *Message) dropFolded(b []byte) {
	for _, w := range [...]struct {
		s    *Span
		flag Flags
	}{
		{&m.CallID, BadCallID},
		{&m.FromUser, OddAddress}, {&m.FromHost, OddAddress}, {&m.FromTag, OddAddress},
		{&m.ToUser, OddAddress}, {&m.ToHost, OddAddress}, {&m.ToTag, OddAddress},
		{&m.ViaTransport, OddVia}, {&m.ViaHost, OddVia}, {&m.ViaBranch, OddVia},
		{&m.CSeqMethod, BadCSeq},
	} {
		if broken(w.s.Of(b)) {
			*w.s = Span{}
			m.Flags |= w.flag
		}
	}
}

// EventMethod returns the method that a message is about: the one of the start
// line, or for a response the one of its CSeq. It is empty when neither was read.
func (m *Message) EventMethod(b []byte) []byte {
	if m.Request {
		return m.Method.Of(b)
	}
	return m.CSeqMethod.Of(b)
}

// HasSDP reports whether the body is announced as SDP, or as several parts of which one is SDP.
func (m *Message) HasSDP() bool { return m.sdp }

// Complete reports whether the whole message was there: its header fields were
// closed by an empty line and its body is as long as Content-Length says. On a
// stream, a message that is not complete may become so when more is read; one
// without Content-Length counts as complete and takes all there is.
func (m *Message) Complete() bool { return m.Flags&(NoEnd|ShortBody|KeepAlive) == 0 }
