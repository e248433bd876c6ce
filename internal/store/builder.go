package store

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// A Builder makes rows from events. It is for one goroutine. It does not
// allocate once its buffers have grown. The zero value is ready for use.
type Builder struct {
	msg  sipmsg.Message
	text []byte // what is not a view into the event
	rows []Row
}

// Rows returns the rows of e: one without a traced user, unless e has
// [trace.UsersOnly], and one for each traced user. With [trace.NoStore] there
// are none. The rows are views into e and the Builder: valid until the next
// call, and only while e is.
func (b *Builder) Rows(e *trace.Event) []Row {
	b.text, b.rows = b.text[:0], b.rows[:0]
	if e.Flags.Has(trace.NoStore) {
		return nil
	}
	if !e.Flags.Has(trace.UsersOnly) {
		b.rows = append(b.rows, Row{})
	}
	for _, user := range e.TracedUsers {
		if text := b.string(user); len(text) > 0 && !b.has(text) {
			b.rows = append(b.rows, Row{TracedUser: text})
		}
	}
	if len(b.rows) == 0 {
		return nil
	}
	first := &b.rows[0]
	b.fill(first, e)
	base := first.ID
	for i := range b.rows {
		user := b.rows[i].TracedUser
		b.rows[i] = *first
		b.rows[i].TracedUser = user
		b.rows[i].ID = rowID(base, user)
	}
	return b.rows
}

// has reports whether there is a row for user already.
func (b *Builder) has(user []byte) bool {
	for i := range b.rows {
		if bytes.Equal(b.rows[i].TracedUser, user) {
			return true
		}
	}
	return false
}

// fill sets what the rows of e have in common.
func (b *Builder) fill(r *Row, e *trace.Event) {
	r.EventID = e.ID
	if e.ID.IsZero() {
		named := *e
		named.Identify()
		r.EventID = named.ID
	}
	r.ID = int64(binary.BigEndian.Uint64(r.EventID[:8])&^0xffff | uint64(binary.BigEndian.Uint16(r.EventID[14:])))
	r.Time = time.UnixMicro(e.Time.UnixMicro()).UTC()
	r.Msg = e.Payload
	r.Direction = e.Direction
	r.Transport = e.Transport
	r.Node = b.node(e.Agent)
	r.CorrelationID = b.clean(e.CorrelationID)
	r.FromIP = b.addr(e.Transport, e.Src)
	r.ToIP = b.addr(e.Transport, e.Dst)
	if e.Type == trace.TypeSIP {
		b.sip(r, e.Payload)
	} else {
		r.Method = b.foreign(e.Type)
	}
	if len(r.CallID) == 0 {
		r.CallID = r.CorrelationID
	}
}

// sip sets what the message says of itself. What cannot be read stays empty.
func (b *Builder) sip(r *Row, msg []byte) {
	m := &b.msg
	sipmsg.Scan(m, msg)
	r.CallID = b.clean(m.CallID.Of(msg))
	r.Method = b.clean(m.EventMethod(msg))
	if bytes.HasPrefix(r.Method, []byte(foreignMethod)) {
		r.Method = nil
	}
	if m.Response {
		r.Status = b.clean(m.StatusText.Of(msg))
	}
	r.FromTag = b.clean(m.FromTag.Of(msg))
	r.ToTag = b.clean(m.ToTag.Of(msg))
	r.CSeq = int64(m.CSeqNumber)
	r.FromUser = b.clean(m.FromUser.Of(msg))
	r.ToUser = b.clean(m.ToUser.Of(msg))
	r.RURIUser = b.clean(m.RURIUser.Of(msg))
}

// foreignMethod begins the column method of what is no SIP; the HEP protocol
// type follows. A SIP method has no colon.
const foreignMethod = "hep:"

func (b *Builder) foreign(typ uint8) []byte {
	start := len(b.text)
	b.text = append(b.text, foreignMethod...)
	b.text = strconv.AppendUint(b.text, uint64(typ), 10)
	return b.since(start)
}

func (b *Builder) node(a trace.Agent) []byte {
	if a.Name != "" {
		return b.string(a.Name)
	}
	start := len(b.text)
	if a.ID != 0 {
		b.text = strconv.AppendUint(b.text, uint64(a.ID), 10)
	}
	return b.since(start)
}

func (b *Builder) addr(t trace.Transport, a netip.AddrPort) []byte {
	start := len(b.text)
	b.text = appendAddr(b.text, t, a)
	return b.since(start)
}

func (b *Builder) string(s string) []byte {
	start := len(b.text)
	b.text = append(b.text, s...)
	return b.clean(b.since(start))
}

func (b *Builder) clean(v []byte) []byte {
	if len(v) == 0 {
		return nil
	}
	b.text, v = clean(b.text, v)
	return v
}

func (b *Builder) since(start int) []byte { return b.text[start:len(b.text):len(b.text)] }

// rowID is the column id: the milliseconds of capture and 16 bits of digest.
func rowID(event int64, user []byte) int64 {
	if len(user) == 0 {
		return event
	}
	return event ^ int64(xxh3.Hash(user)&0xffff)
}
