package hep

import (
	"net/netip"
	"strings"
	"time"
)

// Sizes of version 3 packets.
const (
	MaxSize      = 65535 // the largest packet
	OverheadIPv4 = 99    // what the ten usual chunks and the payload's head add to an IPv4 payload
	OverheadIPv6 = 123   // and to an IPv6 payload
)

// Packet is one HEP packet. After Decode its slices alias the bytes that were
// decoded, but for what a Decoder says it keeps itself.
//
// A field may be absent, and absent is not zero: see Has. Slices are absent
// when nil, addresses when invalid. A number that is not zero is always
// present; a zero is present if it was in the packet or was Set.
type Packet struct {
	Version  uint8 // 1, 2 or 3
	Family   uint8 // AF_ value as sent; the addresses count, not this
	Protocol uint8 // IP protocol
	Type     uint8 // what the payload is; TypeSIP for versions 1 and 2

	Quirks   Quirk // what a receiver had to overlook
	Trailing int   // bytes behind the packet that a lenient Decoder left unread

	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Sec, Usec        uint32 // capture time as sent; Time reads it
	CaptureID        uint32
	KeepAlive        uint16
	VLAN             uint16

	set Field // numbers that are present though zero

	AuthKey           []byte
	CorrelationID     []byte
	Node              []byte // name of the capture agent
	Payload           []byte // chunk 0x0f or, if there is none, chunk 0x10 inflated
	CompressedPayload []byte // chunk 0x10 as it was

	Extra   []byte // every other chunk, whole, in order; written again in front of the payload
	Private []byte // chunks of the vendor Decoder.Private, likewise; written again behind the payload
}

// Field names fields of a Packet; join several with |.
type Field uint32

// The fields of a Packet.
const (
	FieldFamily            Field = 1 << ChunkFamily
	FieldProtocol          Field = 1 << ChunkProtocol
	FieldSrc               Field = 1 << ChunkSrc4
	FieldDst               Field = 1 << ChunkDst4
	FieldSrcPort           Field = 1 << ChunkSrcPort
	FieldDstPort           Field = 1 << ChunkDstPort
	FieldSec               Field = 1 << ChunkSec
	FieldUsec              Field = 1 << ChunkUsec
	FieldType              Field = 1 << ChunkType
	FieldCaptureID         Field = 1 << ChunkCaptureID
	FieldKeepAlive         Field = 1 << ChunkKeepAlive
	FieldAuthKey           Field = 1 << ChunkAuthKey
	FieldPayload           Field = 1 << ChunkPayload
	FieldCompressedPayload Field = 1 << ChunkCompressedPayload
	FieldCorrelationID     Field = 1 << ChunkCorrelationID
	FieldVLAN              Field = 1 << ChunkVLAN
	FieldNode              Field = 1 << ChunkNode

	// FieldTime is the capture time, both parts of it.
	FieldTime = FieldSec | FieldUsec

	// FieldNumbers are the fields that Set makes present.
	FieldNumbers = FieldFamily | FieldProtocol | FieldSrcPort | FieldDstPort | FieldTime |
		FieldType | FieldCaptureID | FieldKeepAlive | FieldVLAN
)

// Has reports whether every field in f is present.
func (p *Packet) Has(f Field) bool { return p.set&f == f || p.fields()&f == f }

// Set makes the numbers in f present even while they are zero. Slices and
// addresses are present by what they hold, and not touched.
func (p *Packet) Set(f Field) { p.set |= f & FieldNumbers }

// Clear makes the fields in f absent.
func (p *Packet) Clear(f Field) {
	p.set &^= f
	clearIf(f&FieldFamily != 0, &p.Family)
	clearIf(f&FieldProtocol != 0, &p.Protocol)
	clearIf(f&FieldSrc != 0, &p.Src)
	clearIf(f&FieldDst != 0, &p.Dst)
	clearIf(f&FieldSrcPort != 0, &p.SrcPort)
	clearIf(f&FieldDstPort != 0, &p.DstPort)
	clearIf(f&FieldSec != 0, &p.Sec)
	clearIf(f&FieldUsec != 0, &p.Usec)
	clearIf(f&FieldType != 0, &p.Type)
	clearIf(f&FieldCaptureID != 0, &p.CaptureID)
	clearIf(f&FieldKeepAlive != 0, &p.KeepAlive)
	clearIf(f&FieldAuthKey != 0, &p.AuthKey)
	clearIf(f&FieldPayload != 0, &p.Payload)
	clearIf(f&FieldCompressedPayload != 0, &p.CompressedPayload)
	clearIf(f&FieldCorrelationID != 0, &p.CorrelationID)
	clearIf(f&FieldVLAN != 0, &p.VLAN)
	clearIf(f&FieldNode != 0, &p.Node)
}

func clearIf[T any](yes bool, v *T) {
	if yes {
		var zero T
		*v = zero
	}
}

// fields is the set of the fields that are present.
func (p *Packet) fields() Field {
	f := p.set
	f |= when(p.Family != 0, FieldFamily)
	f |= when(p.Protocol != 0, FieldProtocol)
	f |= when(p.Src.IsValid(), FieldSrc)
	f |= when(p.Dst.IsValid(), FieldDst)
	f |= when(p.SrcPort != 0, FieldSrcPort)
	f |= when(p.DstPort != 0, FieldDstPort)
	f |= when(p.Sec != 0, FieldSec)
	f |= when(p.Usec != 0, FieldUsec)
	f |= when(p.Type != 0, FieldType)
	f |= when(p.CaptureID != 0, FieldCaptureID)
	f |= when(p.KeepAlive != 0, FieldKeepAlive)
	f |= when(p.AuthKey != nil, FieldAuthKey)
	f |= when(p.Payload != nil, FieldPayload)
	f |= when(p.CompressedPayload != nil, FieldCompressedPayload)
	f |= when(p.CorrelationID != nil, FieldCorrelationID)
	f |= when(p.VLAN != 0, FieldVLAN)
	f |= when(p.Node != nil, FieldNode)
	return f
}

func when(yes bool, f Field) Field {
	if yes {
		return f
	}
	return 0
}

// Time is the capture time. Microseconds above 999999 count into the seconds.
// It is false when the packet has no seconds, as every version 1 packet.
func (p *Packet) Time() (time.Time, bool) {
	if !p.Has(FieldSec) {
		return time.Time{}, false
	}
	return time.Unix(int64(p.Sec), int64(p.Usec)*1000), true
}

// SetTime sets the capture time, cut to the microsecond. A time that 32 bits
// of seconds since 1970 cannot tell is ErrTime and changes nothing.
func (p *Packet) SetTime(t time.Time) error {
	sec := t.Unix()
	if sec < 0 || sec > 1<<32-1 {
		return ErrTime
	}
	p.Sec, p.Usec = uint32(sec), uint32(t.Nanosecond()/1000)
	p.set |= FieldTime
	return nil
}

// Quirk tells what in a packet is not as it should be; several may be joined.
// Only QuirkDuplicate and QuirkByteOrder of version 2 come from a strict
// Decoder, which refuses the others.
type Quirk uint16

// The quirks.
const (
	QuirkDuplicate Quirk = 1 << iota // a field came twice and the last one won
	QuirkTrailing                    // bytes behind the packet were left unread
	QuirkTruncated                   // the packet was cut; only whole chunks were read
	QuirkWidth                       // a number had another width than its type
	QuirkMapped                      // an IPv4 chunk held a 16-byte address
	QuirkByteOrder                   // the time was in the other byte order
	QuirkUsec                        // microseconds above 999999 were carried
	QuirkNUL                         // NUL bytes behind the payload were cut off
)

// String lists the quirks by name, for logs.
func (q Quirk) String() string {
	names := [...]string{"duplicate", "trailing", "truncated", "width", "mapped", "byte-order", "usec", "nul"}
	var s []string
	for i, name := range names {
		if q&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return strings.Join(s, ",")
}
