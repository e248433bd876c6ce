package trace

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// The bus speaks HEP3. A frame is the body of one message on the bus: whole
// HEP3 packets, one behind the other, an event each. What HEP has no chunk for
// travels in vendor chunks behind the payload chunk, so that cutting them off
// and patching the length leaves an ordinary packet:
//
//	"HEP3" | total | 01 02 03 04 07 08 09 0a 0b 0c [11] [13] […] | 0f payload | 5354:0101 … |
//
// Types start at 0x0101: decoders that ignore the vendor id would take smaller
// ones for generic chunks.
const (
	Vendor uint16 = 0x5354 // "ST"

	ChunkEventID     uint16 = 0x0101 // 16 bytes
	ChunkTransport   uint16 = 0x0102 // 1 byte, a [Transport], where the IP protocol does not tell it
	ChunkDirection   uint16 = 0x0103 // 1 byte, a [Direction]; absent is unknown
	ChunkFlags       uint16 = 0x0104 // 2 bytes, [Flags], big endian; absent is 0
	ChunkTable       uint16 = 0x0105 // text
	ChunkTracedUser  uint16 = 0x0106 // text, one chunk for each user
	ChunkDestination uint16 = 0x0107 // text, one chunk for each URI
	ChunkRule        uint16 = 0x0108 // text

	// ChunkOrigin names a fleet whose stream the event has been in. Each
	// hep-forwarder adds one for its own, and a tap that meets the one of its
	// own fleet has met a loop. It travels on as one of [Event.Chunks].
	ChunkOrigin uint16 = 0x0110
)

// ErrFrame marks a frame that cannot be decoded.
var ErrFrame = errors.New("bad frame")

// AppendEvent appends e to dst as one HEP3 packet with siptrace's chunks, and
// does not allocate when dst has room. A payload too long for HEP3 (65,535
// bytes with everything) goes compressed, and only if that is still too long, or
// is more than 128 KiB and 32 times its compressed size, cut and flagged
// [Truncated]; none comes back as an empty one. It fails for an event that HEP
// cannot carry at all: a time outside 1970–2106, or names and users that leave
// no room. Then dst comes back as it was.
func AppendEvent(dst []byte, e *Event) ([]byte, error) {
	start := len(dst)
	var p hep.Packet
	if err := ToHEP(&p, e); err != nil {
		return dst, fmt.Errorf("encode event: %w", err)
	}
	room := hep.MaxSize - (p.Size() - len(e.Payload)) - routingSize(e)
	flags := e.Flags
	if len(e.Payload) > room {
		flags = shrink(&p, e, room)
	}
	out, err := p.Append(dst)
	if err != nil {
		return dst[:start], fmt.Errorf("encode event: %w", err)
	}
	out = appendRouting(out, e, flags)
	if err := hep.PatchLength(out[start:]); err != nil {
		return dst[:start], fmt.Errorf("encode event: %w", err)
	}
	return out, nil
}

// shrink makes the payload of p fit in room bytes and returns the flags of
// what is sent.
func shrink(p *hep.Packet, e *Event, room int) Flags {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(e.Payload) // a bytes.Buffer takes everything
	_ = w.Close()
	if z.Len() <= room && len(e.Payload) <= mayInflate(z.Len()) {
		p.Payload, p.CompressedPayload = nil, z.Bytes()
		return e.Flags
	}
	p.Payload = e.Payload[:max(room, 0)]
	return e.Flags | Truncated
}

// What a compressed payload may unfold to is bounded, also by what it is now: a
// bomb of a stranger's must not go off in every reader of the bus. Text is far
// below that ratio; a megabyte of nothing is at a thousand. Twice what a datagram
// can hold is taken at any ratio.
const (
	maxInflate = 1 << 20
	anyInflate = 1 << 17
	maxRatio   = 32
)

// mayInflate is what so many bytes may unfold to.
func mayInflate(n int) int { return min(maxInflate, max(anyInflate, maxRatio*n)) }

// routingSize is the number of bytes appendRouting writes, at most.
func routingSize(e *Event) int {
	const head = 6
	n := head + len(e.ID) + 3*head + 4
	if e.Table != "" {
		n += head + len(e.Table)
	}
	for _, u := range e.TracedUsers {
		n += head + len(u)
	}
	for _, d := range e.Destinations {
		n += head + len(d)
	}
	if e.Rule != "" {
		n += head + len(e.Rule)
	}
	return n
}

func appendRouting(b []byte, e *Event, flags Flags) []byte {
	b = appendHead(b, ChunkEventID, len(e.ID))
	b = append(b, e.ID[:]...)
	if TransportOf(e.Transport.IPProtocol()) != e.Transport {
		b = append(appendHead(b, ChunkTransport, 1), byte(e.Transport))
	}
	if e.Direction != DirectionUnknown {
		b = append(appendHead(b, ChunkDirection, 1), byte(e.Direction))
	}
	if flags != 0 {
		b = binary.BigEndian.AppendUint16(appendHead(b, ChunkFlags, 2), uint16(flags))
	}
	if e.Table != "" {
		b = append(appendHead(b, ChunkTable, len(e.Table)), e.Table...)
	}
	for _, u := range e.TracedUsers {
		b = append(appendHead(b, ChunkTracedUser, len(u)), u...)
	}
	for _, d := range e.Destinations {
		b = append(appendHead(b, ChunkDestination, len(d)), d...)
	}
	if e.Rule != "" {
		b = append(appendHead(b, ChunkRule, len(e.Rule)), e.Rule...)
	}
	return b
}

// appendHead appends the head of one of our chunks with a body of n bytes.
func appendHead(b []byte, typ uint16, n int) []byte {
	return append(b, byte(Vendor>>8), byte(Vendor&0xff), byte(typ>>8), byte(typ), byte((n+6)>>8), byte(n+6))
}

// FrameDecoder decodes frames and reuses its memory: what Decode returns is
// valid until the next Decode, and only as long as the body is unchanged.
// The zero value is ready.
type FrameDecoder struct {
	hep    hep.Decoder
	packet hep.Packet
	names  Names
	events []Event
	lists  []string
	kept   []byte // what the HEP decoder would overwrite with the next packet
}

// Decode returns the events of a frame: all of them or, with an error that wraps
// [ErrFrame], none.
func (d *FrameDecoder) Decode(body []byte) ([]Event, error) {
	d.Reset()
	return d.Append(body)
}

// maxKept is how much memory of compressed payloads is used again.
const maxKept = 4 << 20

// Unfolded is the number of bytes that the events since Reset hold beside the
// frames they point into.
func (d *FrameDecoder) Unfolded() int { return len(d.kept) }

// Reset forgets the events of earlier frames, so that their memory is used again.
func (d *FrameDecoder) Reset() {
	if cap(d.kept) > maxKept {
		d.kept = nil
	}
	clear(d.events)
	d.events, d.lists, d.kept = d.events[:0], d.lists[:0], d.kept[:0]
}

// Append decodes one more frame and returns its events together with those of
// all frames since [FrameDecoder.Reset]. On error the events of this frame are
// left out.
func (d *FrameDecoder) Append(body []byte) ([]Event, error) {
	d.hep.Private = Vendor
	before := len(d.events)
	for off := 0; off < len(body); {
		pkt, err := nextPacket(body[off:])
		if err == nil {
			err = d.event(pkt)
		}
		if err != nil {
			clear(d.events[before:])
			d.events = d.events[:before]
			return d.events, fmt.Errorf("%w: event %d at byte %d: %w", ErrFrame, len(d.events)-before, off, err)
		}
		off += len(pkt)
	}
	return d.events, nil
}

// nextPacket cuts the first packet off a frame.
func nextPacket(b []byte) ([]byte, error) {
	const head = 6
	if len(b) < head {
		return nil, hep.ErrTruncated
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < head || n > len(b) {
		return nil, hep.ErrTruncated
	}
	return b[:n], nil
}

// event decodes one packet into the next element of d.events.
func (d *FrameDecoder) event(pkt []byte) error {
	p := &d.packet
	d.hep.MaxInflate = mayInflate(len(pkt))
	if err := d.hep.Decode(p, pkt); err != nil {
		return err
	}
	d.events = append(d.events, Event{})
	e := &d.events[len(d.events)-1]
	FromHEP(e, p, &d.names)
	if p.CompressedPayload != nil {
		e.Payload = d.keep(p.Payload)
	}
	e.Chunks = d.keep(p.Extra)
	if err := d.routing(e, p.Private); err != nil {
		d.events = d.events[:len(d.events)-1]
		return err
	}
	return nil
}

// keep copies what may be the HEP decoder's own memory.
func (d *FrameDecoder) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	at := len(d.kept)
	d.kept = append(d.kept, b...)
	return d.kept[at:len(d.kept):len(d.kept)]
}

// routing reads siptrace's own chunks.
func (d *FrameDecoder) routing(e *Event, chunks []byte) error {
	users, destinations := 0, 0
	for b := chunks; len(b) > 0; {
		n := 0
		if len(b) >= 6 {
			n = int(binary.BigEndian.Uint16(b[4:]))
		}
		if n < 6 || n > len(b) {
			return hep.ErrChunk
		}
		typ, chunk, body := binary.BigEndian.Uint16(b[2:]), b[:n], b[6:n]
		b = b[n:]
		switch typ {
		case ChunkOrigin:
			at := len(d.kept)
			d.kept = append(append(d.kept, e.Chunks...), chunk...)
			e.Chunks = d.kept[at:len(d.kept):len(d.kept)]
		case ChunkEventID:
			if len(body) != len(e.ID) {
				return fmt.Errorf("event id of %d bytes: %w", len(body), hep.ErrChunk)
			}
			e.ID = ID(body)
		case ChunkTransport:
			if len(body) != 1 || int(body[0]) >= len(transportNames) {
				return fmt.Errorf("transport: %w", hep.ErrChunk)
			}
			e.Transport = Transport(body[0])
		case ChunkDirection:
			if len(body) != 1 || Direction(body[0]) > Out {
				return fmt.Errorf("direction: %w", hep.ErrChunk)
			}
			e.Direction = Direction(body[0])
		case ChunkFlags:
			if len(body) != 2 {
				return fmt.Errorf("flags: %w", hep.ErrChunk)
			}
			e.Flags = Flags(binary.BigEndian.Uint16(body))
		case ChunkTable:
			e.Table = d.names.Of(body)
		case ChunkTracedUser:
			users++
		case ChunkDestination:
			destinations++
		case ChunkRule:
			e.Rule = d.names.Of(body)
		}
	}
	if users > 0 {
		e.TracedUsers = d.list(chunks, ChunkTracedUser)
	}
	if destinations > 0 {
		e.Destinations = d.list(chunks, ChunkDestination)
	}
	return nil
}

// list gathers the bodies of all chunks of one type; routing has checked them.
func (d *FrameDecoder) list(b []byte, want uint16) []string {
	start := len(d.lists)
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint16(b[4:]))
		if binary.BigEndian.Uint16(b[2:]) == want {
			d.lists = append(d.lists, d.names.Of(b[6:n]))
		}
		b = b[n:]
	}
	return d.lists[start:len(d.lists):len(d.lists)]
}
