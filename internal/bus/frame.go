package bus

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/zeebo/xxh3"
)

const (
	maxPacket = 1<<16 - 1 // a HEP3 packet tells its length in 16 bits
	maxFrame  = 2 << 20   // what a compressed frame may unfold to
)

// A frameDigest is the id of a frame: the same for the same events in the same
// order, so that a frame that is published again is stored once. Events that
// are to go elsewhere, into another table or to no collector, are others.
type frameDigest [16]byte

// digest makes the id of a frame from its packets.
func digest(packets []byte) frameDigest { return xxh3.Hash128(packets).Bytes() }

func (d frameDigest) String() string { return hex.EncodeToString(d[:]) }

// frameHeader is the header of a frame.
func frameHeader(id string, compressed bool) nats.Header {
	h := nats.Header{
		jetstream.MsgIDHeader: []string{id},
		HeaderFrame:           []string{frameVersion},
	}
	if compressed {
		h[HeaderEncoding] = []string{encodingS2}
	}
	return h
}

// errNotFrame marks a message that says it is something we cannot read.
var errNotFrame = errors.New("not a frame")

// unpack returns the HEP3 packets of a message. They are in body itself or,
// when it is compressed, in buf, which is returned grown as needed.
func unpack(header nats.Header, body, buf []byte) (packets, grown []byte, err error) {
	if v := header.Get(HeaderFrame); v != "" && v != frameVersion {
		return nil, buf, fmt.Errorf("%w: version %q", errNotFrame, v)
	}
	switch enc := header.Get(HeaderEncoding); enc {
	case "":
		return body, buf, nil
	case encodingS2:
		return unpackS2(body, buf)
	default:
		return nil, buf, fmt.Errorf("%w: content encoding %q", errNotFrame, enc)
	}
}

func unpackS2(body, buf []byte) (packets, grown []byte, err error) {
	n, err := s2.DecodedLen(body)
	if err != nil {
		return nil, buf, fmt.Errorf("%w: %w", trace.ErrFrame, err)
	}
	if n > maxFrame {
		return nil, buf, fmt.Errorf("%w: %d bytes are more than %d", trace.ErrFrame, n, maxFrame)
	}
	if n > cap(buf) {
		buf = make([]byte, n)
	}
	packets, err = s2.Decode(buf[:cap(buf)], body)
	if err != nil {
		return nil, buf, fmt.Errorf("%w: %w", trace.ErrFrame, err)
	}
	return packets, buf, nil
}

// packetLen is the length of the first packet of our own frame.
func packetLen(packets []byte) int {
	return int(binary.BigEndian.Uint16(packets[4:]))
}

// buffer is memory that is used again.
type buffer struct{ b []byte }

// buffers hands out memory in sizes that waste at most a quarter. The zero
// value is ready.
type buffers struct {
	classes [128]sync.Pool
}

// get returns a buffer with room for at least n bytes.
func (p *buffers) get(n int) *buffer {
	class, size := sizeClass(n)
	if b, ok := p.classes[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, size)}
}

func (p *buffers) put(b *buffer) {
	class, _ := sizeClass(cap(b.b))
	b.b = b.b[:0]
	p.classes[class].Put(b)
}

// sizeClass rounds n up to the next quarter of a power of two.
func sizeClass(n int) (class, size int) {
	const smallest = 256
	n = max(n, smallest)
	shift := max(bits.Len(uint(n-1))-3, 0) // quarters of the power of two below n
	quarters := (n + 1<<shift - 1) >> shift
	return shift*4 + quarters - 4, quarters << shift
}
