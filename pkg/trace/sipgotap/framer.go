package sipgotap

import (
	"bytes"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

const (
	// maxMessage is the longest message that is traced whole. Of a longer one
	// this much is kept, and flagged.
	maxMessage = 256 << 10

	// maxHeader bounds a start line, and a header.
	maxHeader = 64 << 10
)

// A framer cuts one direction of a stream into SIP messages. It holds at most
// one message that has not come whole. Where no message begins it looks for
// the next start line; a stream that is joined in its middle is no different.
//
//	for f.feed(b); f.next(); {
//		f.message()
//	}
//	f.keep()
type framer struct {
	held []byte // the beginning of a message, from earlier
	data []byte // held with what came now, or only that
	pos  int    // where in data the message at hand begins

	begun  bool // a start line is at pos
	lost   bool // what came last was no message
	looked int  // so much of data[pos:] holds no end of the line, or of the header
	need   int  // length of the message at pos; 0 is not known yet
	skip   int  // what is still to come of a message that was cut

	msg   sipmsg.Message // of the message at pos, once need is known
	found int            // length of what next found

	pings   int // keep-alives
	garbage int // bytes outside of messages
}

// feed takes what came. It holds b until keep.
func (f *framer) feed(b []byte) {
	n := min(f.skip, len(b))
	f.skip -= n
	b = b[n:]
	f.data, f.pos, f.found = b, 0, 0
	if len(f.held) > 0 {
		f.held = append(f.held, b...)
		f.data = f.held
	}
}

// next finds the next message, or says that more must come first.
func (f *framer) next() bool {
	f.pos += f.found
	f.found = 0
	for f.need == 0 {
		if !f.begun && !f.begin() || !f.header() {
			return false
		}
	}
	have := len(f.data) - f.pos
	if have < min(f.need, maxMessage) {
		return false
	}
	f.found = min(have, f.need)
	f.skip = f.need - f.found
	f.begun, f.looked, f.need = false, 0, 0
	return true
}

// message is the message that next found, and whether it had to be cut. The
// fields of f.msg are in it.
func (f *framer) message() (b []byte, cut bool) {
	n := min(f.found, maxMessage)
	return f.data[f.pos : f.pos+n : f.pos+n], f.found > n || f.skip > 0
}

// keep holds what belongs to a message that is not there whole.
func (f *framer) keep() {
	rest := f.data[f.pos:]
	switch {
	case len(f.held) == 0:
		f.held = append(f.held, rest...)
	case len(rest) < len(f.held):
		f.held = f.held[:copy(f.held, rest)]
	}
	if len(f.held) == 0 && cap(f.held) > maxHeader {
		f.held = nil
	}
	f.data, f.pos = nil, 0
}

// begin goes to the next start line. It is false if there is none yet.
func (f *framer) begin() bool {
	for {
		if f.looked == 0 {
			f.padding()
		}
		rest := f.data[f.pos:]
		i := bytes.IndexByte(rest[f.looked:], '\n')
		if i < 0 {
			if f.looked = len(rest); f.looked > maxHeader {
				f.drop(len(rest))
			}
			return false
		}
		if f.looked = 0; sipmsg.IsSIP(rest) {
			f.begun, f.lost = true, false
			return true
		}
		f.drop(1 + bytes.IndexByte(rest, '\n'))
	}
}

// padding skips what may stand between messages.
func (f *framer) padding() {
	at := f.pos
	for f.pos < len(f.data) && isPadding(f.data[f.pos]) {
		f.pos++
	}
	switch {
	case f.pos == at:
	case f.lost:
		f.garbage += f.pos - at
	default:
		f.pings++
	}
}

func isPadding(c byte) bool { return c == '\r' || c == '\n' || c == 0 }

// drop leaves out the next n bytes, which are of no message.
func (f *framer) drop(n int) {
	f.garbage += n
	f.pos += n
	f.looked = 0
	f.lost = true
}

// header reads the header at pos, and with it how long the message is. It is
// false if the end of the header has not come yet.
func (f *framer) header() bool {
	rest := f.data[f.pos:]
	end := headerEnd(rest, f.looked)
	switch {
	case end < 0 && len(rest) <= maxHeader:
		f.looked = max(len(rest)-3, 0)
		return false
	case end < 0: // no header is so long
		f.begun = false
		f.drop(1 + bytes.IndexByte(rest, '\n'))
		return true
	}
	sipmsg.Scan(&f.msg, rest[:end])
	body := f.msg.Fields.End()
	f.need = body + f.msg.ContentLength
	if f.msg.ContentLength < 0 {
		f.need = body + bodyLen(rest[body:])
	}
	return true
}

// headerEnd returns where the first empty line at or after from ends, or -1.
func headerEnd(b []byte, from int) int {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1
		}
		from += i + 1
		switch after := b[from:]; {
		case len(after) > 0 && after[0] == '\n':
			return from + 1
		case len(after) > 1 && after[0] == '\r' && after[1] == '\n':
			return from + 2
		}
	}
}

// bodyLen is the length of a body that nobody has told: up to the next start
// line, or all there is.
func bodyLen(b []byte) int {
	for at := 0; at < len(b); {
		line := b[at:]
		if !isPadding(line[0]) && sipmsg.IsSIP(line) {
			b = b[:at]
			break
		}
		i := bytes.IndexByte(line, '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	for _, c := range b {
		if !isPadding(c) {
			return len(b)
		}
	}
	return 0 // pings
}
