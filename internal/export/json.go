package export

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// jsonEncoder writes an object a line.
type jsonEncoder struct{}

// object is an event with the names of the table's columns, and what the
// table has no column for.
type object struct {
	EventID       string   `json:"event_id"`
	TimeStamp     string   `json:"time_stamp"`
	CallID        string   `json:"callid"`
	Method        string   `json:"method"`
	Status        string   `json:"status"`
	FromIP        string   `json:"fromip"`
	ToIP          string   `json:"toip"`
	FromTag       string   `json:"fromtag"`
	ToTag         string   `json:"totag"`
	Direction     string   `json:"direction"`
	Node          string   `json:"node"`
	AgentID       uint32   `json:"agent_id"`
	Transport     string   `json:"transport"`
	Type          uint8    `json:"type"`
	VLAN          uint16   `json:"vlan,omitempty"`
	CSeq          uint32   `json:"cseq"`
	CorrelationID string   `json:"correlation_id"`
	FromUser      string   `json:"from_user"`
	ToUser        string   `json:"to_user"`
	RURIUser      string   `json:"ruri_user"`
	TracedUsers   []string `json:"traced_users,omitempty"`
	Table         string   `json:"table,omitempty"`
	Rule          string   `json:"rule,omitempty"`
	Cut           bool     `json:"cut,omitempty"`
	Msg           *string  `json:"msg,omitempty"`     // where it is UTF-8,
	MsgB64        []byte   `json:"msg_b64,omitempty"` // and where not
}

func (jsonEncoder) head(*buffer, bool) error { return nil }

func (jsonEncoder) check(begin []byte) error { return nil }

func (jsonEncoder) event(b *buffer, e *trace.Event) (cut bool, err error) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return false, enc.Encode(toObject(e))
}

func toObject(e *trace.Event) *object {
	var m sipmsg.Message
	if e.Type == trace.TypeSIP {
		sipmsg.Scan(&m, e.Payload)
	}
	of := func(s sipmsg.Span) string { return string(s.Of(e.Payload)) }
	v := &object{
		EventID: e.ID.String(), TimeStamp: e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"),
		CallID: of(m.CallID), Method: string(m.EventMethod(e.Payload)),
		FromIP: column(e.Transport, e.Src), ToIP: column(e.Transport, e.Dst),
		FromTag: of(m.FromTag), ToTag: of(m.ToTag), Direction: e.Direction.String(),
		Node: e.Agent.Name, AgentID: e.Agent.ID, Transport: e.Transport.String(), Type: e.Type, VLAN: e.VLAN,
		CSeq: m.CSeqNumber, CorrelationID: string(e.CorrelationID),
		FromUser: of(m.FromUser), ToUser: of(m.ToUser), RURIUser: of(m.RURIUser),
		TracedUsers: e.TracedUsers, Table: e.Table, Rule: e.Rule, Cut: e.Flags.Has(trace.Truncated),
	}
	if m.Status != 0 {
		v.Status = strconv.Itoa(int(m.Status))
	}
	if utf8.Valid(e.Payload) {
		s := string(e.Payload)
		v.Msg = &s
	} else {
		v.MsgB64 = e.Payload
	}
	return v
}

// column is an address as the table's columns have it: "udp:192.0.2.1:5060".
func column(t trace.Transport, a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	name := t.String()
	if name == "" {
		name = "any"
	}
	return name + ":" + netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}
