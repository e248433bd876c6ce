package hep

import (
	"encoding/binary"
	"iter"
)

const (
	headSize  = 6 // of a packet and of a chunk alike
	magicHEP3 = 'H'<<24 | 'E'<<16 | 'P'<<8 | '3'
	magicEEP3 = 'E'<<24 | 'E'<<16 | 'P'<<8 | '3'
)

// Chunk is one chunk of a version 3 packet as it was on the wire.
type Chunk struct {
	Vendor, Type uint16
	Offset       int    // of its head, in the bytes that are walked
	Body         []byte // aliases them
}

// Uint reads the body as a big-endian number of one to eight bytes, for the
// widths of several types have changed over the years.
func (c Chunk) Uint() (v uint64, ok bool) { return bigEndian(c.Body) }

// Chunks walks the chunks of a version 3 packet in their order, for what
// Packet has no field for. Bytes behind the packet are not looked at. An error
// comes last: of a packet that was cut short, the whole chunks come first.
func Chunks(b []byte) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		total, err := packetSize(b)
		if err != nil {
			yield(Chunk{}, err)
			return
		}
		walk(b[:min(total, len(b))], headSize, total, yield)
	}
}

// Walk walks chunks that stand alone, as Packet.Extra and Packet.Private do.
func Walk(chunks []byte) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		walk(chunks, 0, len(chunks), yield)
	}
}

// walk yields the chunks of b from byte off on. The bytes should reach to
// total; a chunk that ends between len(b) and total was cut off.
func walk(b []byte, off, total int, yield func(Chunk, error) bool) {
	for off < total {
		rest := b[off:]
		if len(rest) < headSize {
			if len(b) < total {
				yield(Chunk{}, ErrTruncated)
			} else {
				yield(Chunk{}, &ChunkError{Offset: off, Err: ErrChunk})
			}
			return
		}
		c := Chunk{Vendor: binary.BigEndian.Uint16(rest), Type: binary.BigEndian.Uint16(rest[2:]), Offset: off}
		n := int(binary.BigEndian.Uint16(rest[4:]))
		switch {
		case n < headSize || n > total-off:
			yield(Chunk{}, &ChunkError{c.Vendor, c.Type, off, ErrChunk})
			return
		case n > len(rest):
			yield(Chunk{}, ErrTruncated)
			return
		}
		c.Body = rest[headSize:n:n]
		if !yield(c, nil) {
			return
		}
		off += n
	}
}

// packetSize is the length that a version 3 packet states. It is
// ErrTruncated if b ends before it does so.
func packetSize(b []byte) (int, error) {
	if len(b) < headSize {
		return 0, short(b)
	}
	if !isHEP3(b) {
		return 0, ErrNotHEP
	}
	total := int(binary.BigEndian.Uint16(b[4:]))
	if total < headSize {
		return 0, ErrLength
	}
	return total, nil
}

// isHEP3 reports whether b, which has four bytes, begins as version 3 does.
func isHEP3(b []byte) bool {
	magic := binary.BigEndian.Uint32(b)
	return magic == magicHEP3 || magic == magicEEP3
}

// short is the error for fewer bytes than a version 3 head has.
func short(b []byte) error {
	n := min(len(b), 4)
	if n > 0 && (string(b[:n]) == "HEP3"[:n] || string(b[:n]) == "EEP3"[:n]) {
		return ErrTruncated
	}
	return ErrNotHEP
}

// Cut cuts the first of several version 3 packets that stand one behind the
// other off b. It looks at nothing but the head of that packet.
func Cut(b []byte) (packet, rest []byte, err error) {
	total, err := packetSize(b)
	if err != nil {
		return nil, b, err
	}
	if total > len(b) {
		return nil, b, ErrTruncated
	}
	return b[:total:total], b[total:], nil
}

// AppendChunk appends a chunk to dst. A packet it is appended to needs its
// length patched afterwards. Of a body longer than 65529 bytes, for which a
// chunk cannot tell the length, PatchLength refuses the packet.
func AppendChunk(dst []byte, vendor, typ uint16, body []byte) []byte {
	n := headSize + len(body)
	if n > MaxSize {
		n = 0
	}
	dst = append(dst, byte(vendor>>8), byte(vendor), byte(typ>>8), byte(typ), byte(n>>8), byte(n))
	return append(dst, body...)
}

// PatchLength writes len(packet) into the head of a version 3 packet whose
// chunks have changed. A packet above 65535 bytes is ErrTooLong and is left as
// it was.
func PatchLength(packet []byte) error {
	if len(packet) < headSize || !isHEP3(packet) {
		return ErrNotHEP
	}
	if len(packet) > MaxSize {
		return ErrTooLong
	}
	binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)))
	return nil
}

// bigEndian reads a number of one to eight bytes.
func bigEndian(b []byte) (v uint64, ok bool) {
	if len(b) < 1 || len(b) > 8 {
		return 0, false
	}
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, true
}
