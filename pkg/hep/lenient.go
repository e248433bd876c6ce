package hep

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// misfit says what is wrong with the chunk of n bytes at off that does not fit
// into rest. It is nil if that is merely where a datagram was cut, which only a
// lenient Decoder lets come so far.
func misfit(rest []byte, n, off, total int) error {
	cut := off+len(rest) < total
	if cut && (len(rest) < headSize || n > len(rest) && n <= total-off) {
		return nil
	}
	err := &ChunkError{Offset: off, Err: ErrChunk}
	if len(rest) >= 4 {
		err.Vendor, err.Type = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	}
	return err
}

// other collects a chunk that Packet has no field for.
func (d *Decoder) other(b []byte, key uint32, from, to int) {
	if vendor := uint16(key >> 16); vendor != 0 && vendor == d.Private {
		d.private.add(b, from, to)
		return
	}
	d.extra.add(b, from, to)
}

// loose reads a chunk of a fixed width that has another one.
func (d *Decoder) loose(p *Packet, key uint32, body []byte) bool {
	if !d.Lenient {
		return false
	}
	switch key {
	case ChunkSrc4:
		return p.mapped(&p.Src, body)
	case ChunkDst4:
		return p.mapped(&p.Dst, body)
	case ChunkSrc6, ChunkDst6:
		return false
	}
	v, ok := bigEndian(body)
	if !ok {
		return false
	}
	switch key {
	case ChunkFamily:
		ok = fit(&p.Family, v, math.MaxUint8)
	case ChunkProtocol:
		ok = fit(&p.Protocol, v, math.MaxUint8)
	case ChunkType:
		ok = fit(&p.Type, v, math.MaxUint8)
	case ChunkSrcPort:
		ok = fit(&p.SrcPort, v, math.MaxUint16)
	case ChunkDstPort:
		ok = fit(&p.DstPort, v, math.MaxUint16)
	case ChunkKeepAlive:
		ok = fit(&p.KeepAlive, v, math.MaxUint16)
	case ChunkVLAN:
		ok = fit(&p.VLAN, v, math.MaxUint16)
	case ChunkSec:
		ok = fit(&p.Sec, v, math.MaxUint32)
	case ChunkUsec:
		ok = fit(&p.Usec, v, math.MaxUint32)
	case ChunkCaptureID:
		ok = fit(&p.CaptureID, v, math.MaxUint32)
	}
	if ok {
		p.Quirks |= QuirkWidth
	}
	return ok
}

// fit stores v in *to if it is at most limit.
func fit[T uint8 | uint16 | uint32](to *T, v, limit uint64) bool {
	if v > limit {
		return false
	}
	*to = T(v)
	return true
}

// mapped reads an IPv4 address that was sent in its 16-byte form.
func (p *Packet) mapped(to *netip.Addr, body []byte) bool {
	if len(body) != 16 {
		return false
	}
	a := netip.AddrFrom16([16]byte(body))
	if !a.Is4In6() {
		return false
	}
	*to = a.Unmap()
	p.Quirks |= QuirkMapped
	return true
}
