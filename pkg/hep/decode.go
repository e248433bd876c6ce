package hep

import (
	"encoding/binary"
	"net/netip"
)

// Decode decodes one packet of any version, and nothing but a whole one: see
// Decoder for what it refuses and for payloads that do not inflate.
func Decode(b []byte) (Packet, error) {
	var d Decoder
	var p Packet
	err := d.Decode(&p, b)
	return p, err
}

// A Decoder decodes packets without allocating. The zero value is strict: the
// bytes are one packet from first to last, chunks fill it exactly, and each
// chunk has the width of its type. A Decoder is for one goroutine at a time.
type Decoder struct {
	// Lenient reads what real agents send: numbers of any width that hold a
	// value that fits, bytes behind the packet, datagrams cut short (the whole
	// chunks of them), 16-byte addresses in IPv4 chunks, times in the wrong
	// byte order or with too many microseconds, and NUL bytes behind the
	// payload of versions 1 and 2. Packet.Quirks tells which of it was needed.
	Lenient bool

	// PackedTime reads the time block of version 2 as 10 bytes, without the
	// 2 bytes of padding that compilers add.
	PackedTime bool

	// MaxInflate is the most bytes a compressed payload may inflate to.
	// 0 means 1 MiB; below 0 payloads are not inflated.
	MaxInflate int

	// Private is a vendor whose chunks go to Packet.Private; 0 means none.
	Private uint16

	extra, private chunkRun
	inflater       *inflater
	tomorrow       int64 // as of when the clock was last asked
}

// Decode decodes one packet of any version into p, and overwrites all of p.
//
// The slices of p alias b, with two exceptions that hold until the next
// Decode: an inflated Payload, and Extra or Private when their chunks did not
// stand together. If a field comes twice the last one counts. An uncompressed
// payload beats a compressed one.
//
// An error that is ErrInflate leaves p complete but for Payload: the packet is
// good, and its payload is in CompressedPayload as it was. After any other
// error p is not to be used.
func (d *Decoder) Decode(p *Packet, b []byte) error {
	*p = Packet{}
	if len(b) >= headSize && isHEP3(b) {
		return d.decode3(p, b)
	}
	if len(b) > 0 && (b[0] == 1 || b[0] == 2) {
		return d.decodeOld(p, b)
	}
	return short(b)
}

// decode3 decodes a version 3 packet, whose head is there.
func (d *Decoder) decode3(p *Packet, b []byte) error {
	p.Version = 3
	total := int(binary.BigEndian.Uint16(b[4:]))
	if total < headSize {
		return ErrLength
	}
	if total != len(b) {
		if err := d.otherSize(p, len(b), total); err != nil {
			return err
		}
		b = b[:min(total, len(b))]
	}
	if err := d.chunks(p, b, total); err != nil {
		return err
	}
	if d.Lenient {
		d.repairTime(p)
	}
	if p.CompressedPayload != nil && p.Payload == nil && d.MaxInflate >= 0 {
		return d.inflate(p)
	}
	return nil
}

// otherSize decides on a packet that states another length than it has.
func (d *Decoder) otherSize(p *Packet, size, total int) error {
	switch {
	case size < total && !d.Lenient:
		return ErrTruncated
	case size < total:
		p.Quirks |= QuirkTruncated
	case !d.Lenient:
		return ErrTrailing
	default:
		p.Quirks |= QuirkTrailing
		p.Trailing = size - total
	}
	return nil
}

// chunks reads the chunks of b into p.
func (d *Decoder) chunks(p *Packet, b []byte, total int) error {
	d.extra.reset()
	d.private.reset()
	var seen, twice Field
	rest := b[headSize:]
	for len(rest) > 0 {
		off := len(b) - len(rest)
		n := chunkSize(rest)
		if n < headSize || n > len(rest) {
			if err := misfit(rest, n, off, total); err != nil {
				return err
			}
			break
		}
		key := binary.BigEndian.Uint32(rest) // vendor and type at once
		body := rest[headSize:n:n]
		ok := true
		switch key {
		case ChunkFamily:
			if ok = len(body) == 1; ok {
				p.Family = body[0]
			}
		case ChunkProtocol:
			if ok = len(body) == 1; ok {
				p.Protocol = body[0]
			}
		case ChunkSrc4:
			if ok = len(body) == 4; ok {
				p.Src = netip.AddrFrom4([4]byte(body))
			}
		case ChunkDst4:
			if ok = len(body) == 4; ok {
				p.Dst = netip.AddrFrom4([4]byte(body))
			}
		case ChunkSrc6:
			if ok = len(body) == 16; ok {
				p.Src = netip.AddrFrom16([16]byte(body))
			}
		case ChunkDst6:
			if ok = len(body) == 16; ok {
				p.Dst = netip.AddrFrom16([16]byte(body))
			}
		case ChunkSrcPort:
			if ok = len(body) == 2; ok {
				p.SrcPort = binary.BigEndian.Uint16(body)
			}
		case ChunkDstPort:
			if ok = len(body) == 2; ok {
				p.DstPort = binary.BigEndian.Uint16(body)
			}
		case ChunkSec:
			if ok = len(body) == 4; ok {
				p.Sec = binary.BigEndian.Uint32(body)
			}
		case ChunkUsec:
			if ok = len(body) == 4; ok {
				p.Usec = binary.BigEndian.Uint32(body)
			}
		case ChunkType:
			if ok = len(body) == 1; ok {
				p.Type = body[0]
			}
		case ChunkCaptureID:
			if ok = len(body) == 4; ok {
				p.CaptureID = binary.BigEndian.Uint32(body)
			}
		case ChunkKeepAlive:
			if ok = len(body) == 2; ok {
				p.KeepAlive = binary.BigEndian.Uint16(body)
			}
		case ChunkAuthKey:
			p.AuthKey = body
		case ChunkPayload:
			p.Payload = body
		case ChunkCompressedPayload:
			p.CompressedPayload = body
		case ChunkCorrelationID:
			p.CorrelationID = body
		case ChunkVLAN:
			if ok = len(body) == 2; ok {
				p.VLAN = binary.BigEndian.Uint16(body)
			}
		case ChunkNode:
			p.Node = body
		default:
			d.other(b, key, off, off+n)
			rest = rest[n:]
			continue
		}
		if !ok && !d.loose(p, key, body) {
			return &ChunkError{Type: uint16(key), Offset: off, Err: ErrChunk}
		}
		bit := Field(1) << (key & 31)
		twice |= seen & bit
		seen |= bit
		rest = rest[n:]
	}
	d.finish(p, b, seen, twice)
	return nil
}

// chunkSize is the length that the chunk at the start of b states, 0 if its head
// is not whole.
func chunkSize(b []byte) int {
	if len(b) < headSize {
		return 0
	}
	return int(binary.BigEndian.Uint16(b[4:]))
}

// finish writes down what the walk over b has found.
func (d *Decoder) finish(p *Packet, b []byte, seen, twice Field) {
	p.set = seen & FieldNumbers
	both4and6 := seen >> (ChunkSrc6 - ChunkSrc4) & seen & (FieldSrc | FieldDst)
	if twice|both4and6 != 0 {
		p.Quirks |= QuirkDuplicate
	}
	p.Extra = d.extra.bytes(b)
	p.Private = d.private.bytes(b)
}
