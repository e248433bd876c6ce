package app

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

const (
	// ackSlots is how many INVITE transactions are remembered.
	ackSlots = 1 << 14

	// ackTime is how long, in seconds of capture time: both sides have given
	// up after 64 times T1 (RFC 3261, timers B and H).
	ackTime = 32
)

// localAcks tells the ACKs to negative final replies that the traced server
// itself has made. Kamailio absorbs such an ACK before its script sees it; a
// tap has only the messages to tell it by:
//
//	INVITE  in        Call-ID c, CSeq 1, branch b
//	404     out       the same, and no INVITE of Call-ID c and CSeq 1 went out
//	ACK     in        the same
//
// So it has to know the direction of messages, and to see the reply before the
// ACK. An ACK that it cannot place is traced.
//
// What is remembered has one place each, given by its digest; of two with the
// same place the later stays. Nothing is allocated for a message.
type localAcks struct {
	slots []ackSlot
	msg   sipmsg.Message
	key   []byte
}

// ackSlot says that something was seen.
type ackSlot struct {
	what uint64 // digest of it
	at   int64  // seconds
}

// What is remembered of a transaction.
const (
	sentOn  = 'o' // its INVITE went on to another server
	refused = 'r' // the server has refused it
)

func newLocalAcks() *localAcks {
	return &localAcks{slots: make([]ackSlot, ackSlots)}
}

// toOwnReply takes note of e and reports whether it is an ACK that answers the
// server's own negative reply.
func (l *localAcks) toOwnReply(e *trace.Event) bool {
	if e.Type != trace.TypeSIP || e.Direction == trace.DirectionUnknown {
		return false
	}
	m, at := &l.msg, e.Time.Unix()
	sipmsg.Scan(m, e.Payload)
	if m.CallID.Empty() || !m.HasCSeqNumber {
		return false
	}
	method, out := m.EventMethod(e.Payload), e.Direction == trace.Out
	switch {
	case m.Request && out && string(method) == "INVITE":
		l.note(l.digest(e, sentOn), at)
	case m.Response && out && string(method) == "INVITE" && m.Status >= 300:
		if !l.noted(l.digest(e, sentOn), at) {
			l.note(l.digest(e, refused), at)
		}
	case m.Request && !out && string(method) == "ACK":
		return l.noted(l.digest(e, refused), at)
	}
	return false
}

// digest is of what is said about the transaction of the message scanned last.
// A server that sends a request on gives it another branch.
func (l *localAcks) digest(e *trace.Event, what byte) uint64 {
	m := &l.msg
	l.key = append(l.key[:0], what)
	l.key = binary.BigEndian.AppendUint32(l.key, m.CSeqNumber)
	l.key = append(l.key, m.CallID.Of(e.Payload)...)
	if what == refused {
		l.key = append(l.key, 0)
		l.key = append(l.key, m.ViaBranch.Of(e.Payload)...)
	}
	return xxh3.Hash(l.key)
}

func (l *localAcks) note(what uint64, at int64) {
	l.slots[what%ackSlots] = ackSlot{what, at}
}

func (l *localAcks) noted(what uint64, at int64) bool {
	s := l.slots[what%ackSlots]
	return s.what == what && at-s.at <= ackTime && s.at-at <= ackTime
}
