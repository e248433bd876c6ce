package trace

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
)

// Event is one traced message. The zero value of every optional field means
// the ordinary case, so that a source fills in only what it knows.
//
// Strings are the event's own. The byte slices may alias a buffer of whoever
// made the event: [Event.Clone] gives a copy that may be kept.
type Event struct {
	ID        ID        // set by [Event.Identify]
	Time      time.Time // capture time, microseconds, taken once and used by every sink
	Agent     Agent     // who captured it
	Transport Transport
	Src, Dst  netip.AddrPort
	Direction Direction // as seen from the agent
	Type      uint8     // HEP protocol type: 1 SIP, 100 log; others pass through untouched
	VLAN      uint16    // 802.1Q tag; 0 is none

	CorrelationID []byte // HEP chunk 0x11; empty is none
	Payload       []byte // the message, byte for byte
	Chunks        []byte // HEP3 chunks siptrace has no field for, kept verbatim

	Table        string   // database table; empty is the writer's default
	TracedUsers  []string // one row each, besides the row without a user
	Destinations []string // URIs that get a duplicate instead of the default ones
	Rule         string   // name of the rule that selected the event
	Flags        Flags
}

// Agent is the capturing node: the HEP capture id and the capture agent name.
type Agent struct {
	ID   uint32
	Name string
}

// Flags change what happens to an event. Zero is the ordinary event: stored,
// duplicated, selected by the global state.
type Flags uint16

// The flags of an event.
const (
	NoStore     Flags = 1 << iota // db-writer skips it
	NoDuplicate                   // hep-forwarder skips it
	Truncated                     // the payload was too long and was cut
	UsersOnly                     // only the rows of TracedUsers: the global state did not select it
)

// Has reports whether every flag of f is set.
func (fl Flags) Has(f Flags) bool { return fl&f == f }

// HEP protocol types that siptrace treats as its own.
const (
	TypeSIP uint8 = 1
	TypeLog uint8 = 100
)

// Direction says which way a message went, seen from the agent.
type Direction uint8

// The directions of a message.
const (
	DirectionUnknown Direction = iota
	In
	Out
)

// String returns the word of siptrace's direction column: "in", "out" or "".
func (d Direction) String() string {
	switch d {
	case In:
		return "in"
	case Out:
		return "out"
	}
	return ""
}

// ParseDirection reads what [Direction.String] writes.
func ParseDirection(s string) (Direction, bool) {
	switch s {
	case "in":
		return In, true
	case "out":
		return Out, true
	case "":
		return DirectionUnknown, true
	}
	return DirectionUnknown, false
}

// Transport is what carried the message (RFC 3261 section 7, RFC 7118, RFC 4168).
type Transport uint8

// The transports of SIP.
const (
	TransportUnknown Transport = iota
	UDP
	TCP
	TLS
	SCTP
	WS
	WSS
)

var transportNames = [...]string{"", "udp", "tcp", "tls", "sctp", "ws", "wss"}

// String returns the lower-case name: "udp". Unknown is "".
func (t Transport) String() string {
	if int(t) < len(transportNames) {
		return transportNames[t]
	}
	return ""
}

// ParseTransport reads what [Transport.String] writes, in any case.
func ParseTransport(s string) (Transport, bool) {
	i := slices.Index(transportNames[:], strings.ToLower(s))
	if i < 0 {
		return TransportUnknown, false
	}
	return Transport(i), true
}

// IPProtocol returns the IP protocol number that HEP carries for t: 17, 6 or
// 132, and 22 for what is encrypted or WebSocket, as Kamailio writes it.
func (t Transport) IPProtocol() uint8 {
	switch t {
	case TCP:
		return 6
	case SCTP:
		return 132
	case TLS, WS, WSS:
		return 22
	}
	return 17
}

// TransportOf returns the likeliest transport for an IP protocol number of
// HEP. 22 (IDP) is what senders write for TLS, 50 (ESP) for WebSocket.
func TransportOf(ipProtocol uint8) Transport {
	switch ipProtocol {
	case 17:
		return UDP
	case 6:
		return TCP
	case 132:
		return SCTP
	case 22:
		return TLS
	case 50:
		return WS
	}
	return TransportUnknown
}

// ID identifies an event: 48 bits of Unix milliseconds, big endian, then 80
// bits of digest. The same captured message always has the same ID, whoever
// computes it and however often it is sent.
type ID [16]byte

// IsZero reports whether the ID has not been set.
func (id ID) IsZero() bool { return id == ID{} }

// Time returns the millisecond of capture.
func (id ID) Time() time.Time {
	var ms [8]byte
	copy(ms[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:])))
}

// String formats the ID as a UUID.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// ParseID reads what [ID.String] writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, fmt.Errorf("event id %q is no UUID", s)
	}
	plain := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(plain)); err != nil {
		return ID{}, fmt.Errorf("event id %q is no UUID: %w", s, err)
	}
	return id, nil
}

// Identify cuts the time to microseconds and sets the ID from agent, capture
// time, addresses, transport and payload. It does not allocate.
func (e *Event) Identify() {
	us := e.Time.UnixMicro()
	e.Time = time.UnixMicro(us).UTC()

	var head [64]byte
	src, dst := e.Src.Addr().As16(), e.Dst.Addr().As16()
	binary.BigEndian.PutUint64(head[0:], uint64(us))
	copy(head[8:], src[:])
	copy(head[24:], dst[:])
	binary.BigEndian.PutUint16(head[40:], e.Src.Port())
	binary.BigEndian.PutUint16(head[42:], e.Dst.Port())
	binary.BigEndian.PutUint32(head[44:], e.Agent.ID)
	binary.BigEndian.PutUint64(head[48:], xxh3.HashString(e.Agent.Name))
	head[56] = byte(e.Transport)
	head[57] = e.Type

	h := xxh3.Hash128Seed(e.Payload, xxh3.Hash(head[:]))
	binary.BigEndian.PutUint64(e.ID[0:], uint64(us/1000)<<16)
	binary.BigEndian.PutUint16(e.ID[6:], uint16(h.Hi))
	binary.BigEndian.PutUint64(e.ID[8:], h.Lo)
}

// Clone returns a copy that shares no byte slice with e.
func (e *Event) Clone() Event {
	c := *e
	c.CorrelationID = slices.Clone(e.CorrelationID)
	c.Payload = slices.Clone(e.Payload)
	c.Chunks = slices.Clone(e.Chunks)
	c.TracedUsers = slices.Clone(e.TracedUsers)
	c.Destinations = slices.Clone(e.Destinations)
	return c
}
