package store

import (
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Row is one row of a trace table, field by column. Text is valid UTF-8
// without NUL and at most [MaxText] bytes long; Msg is the message, byte for byte.
type Row struct {
	ID         int64     // id: of use to people and to queries made for Kamailio; not unique
	Time       time.Time // time_stamp, and its microseconds again in time_us
	CallID     []byte    // callid; the correlation id where the message has none
	TracedUser []byte    // traced_user: empty in the row that stands for the event itself
	Msg        []byte    // msg
	Method     []byte    // method: the request's, or the CSeq method of a reply; "hep:100" is no SIP
	Status     []byte    // status of a reply, as text
	FromIP     []byte    // fromip: udp:192.0.2.1:5060, udp:[2001:db8::1]:5060
	ToIP       []byte    // toip
	FromTag    []byte    // fromtag
	ToTag      []byte    // totag: what the stored message carries
	Direction  trace.Direction

	EventID       trace.ID        // event_id
	Node          []byte          // node: the agent's name, or its id in decimal where it has none
	Transport     trace.Transport // transport
	CSeq          int64           // cseq: the number
	CorrelationID []byte          // correlation_id
	FromUser      []byte          // from_user
	ToUser        []byte          // to_user
	RURIUser      []byte          // ruri_user
}

// TimeUS is the column time_us.
func (r *Row) TimeUS() int32 { return int32(r.Time.Nanosecond() / 1000) }

// Key is the primary key of r.
func (r *Row) Key() Key { return Key{r.Time, r.EventID, string(r.TracedUser)} }

// A Key is the primary key of a row.
type Key struct {
	Time       time.Time
	EventID    trace.ID
	TracedUser string
}
