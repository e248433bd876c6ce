package hep

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

const (
	oldHead    = 8  // of versions 1 and 2, in front of the addresses
	timeBlock  = 12 // of version 2, behind them
	packedTime = 10 // the same without padding
)

// decodeOld decodes versions 1 and 2, whose first byte is there. The header
// length in the second byte is not read: senders disagree on what it counts.
func (d *Decoder) decodeOld(p *Packet, b []byte) error {
	p.Version = b[0]
	if len(b) < 3 {
		return ErrTruncated
	}
	p.Family = b[2]
	p.set = FieldFamily
	width := 4
	if isINET6(p.Family) {
		width = 16
	} else if p.Family != FamilyINET {
		return ErrFamily
	}
	size := oldHead + 2*width
	if p.Version == 2 {
		size += timeBlock
		if d.PackedTime {
			size -= timeBlock - packedTime
		}
	}
	if len(b) < size {
		return ErrTruncated
	}
	p.set |= FieldProtocol | FieldSrcPort | FieldDstPort | FieldType
	p.Protocol, p.Type = b[3], TypeSIP
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	p.Src, _ = netip.AddrFromSlice(b[oldHead : oldHead+width])
	p.Dst, _ = netip.AddrFromSlice(b[oldHead+width : oldHead+2*width])
	if p.Version == 2 {
		d.oldTime(p, b[oldHead+2*width:])
	}
	p.Payload = b[size:len(b):len(b)]
	if d.Lenient {
		trimNUL(p)
	}
	return nil
}

// oldTime reads the time block: little endian, unless it makes sense only in
// big endian.
func (d *Decoder) oldTime(p *Packet, b []byte) {
	p.set |= FieldTime | FieldCaptureID
	sec, usec, id := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint16(b[8:])
	if d.swapped(sec, usec) {
		sec, usec, id = bits.ReverseBytes32(sec), bits.ReverseBytes32(usec), bits.ReverseBytes16(id)
		p.Quirks |= QuirkByteOrder
	}
	p.Sec, p.Usec, p.CaptureID = sec, usec, uint32(id)
	if d.Lenient {
		carryUsec(p)
	}
}

// trimNUL cuts the NUL bytes off the payload that OpenSIPS sends behind it.
func trimNUL(p *Packet) {
	n := len(p.Payload)
	for n > 0 && p.Payload[n-1] == 0 {
		n--
	}
	if n < len(p.Payload) {
		p.Payload = p.Payload[:n:n]
		p.Quirks |= QuirkNUL
	}
}

// sizeOld is the length in version 1 or 2.
func (p *Packet) sizeOld() int {
	n := oldHead + 2*4 + len(p.Payload)
	if p.is6() {
		n += 2 * 12
	}
	if p.Version == 2 {
		n += timeBlock
	}
	return n
}

// appendOld appends the packet in version 1 or 2. The header length it writes
// is Kamailio's: 16 or 40, without the time block.
func (p *Packet) appendOld(dst []byte) ([]byte, error) {
	if err := p.checkOld(); err != nil {
		return dst, err
	}
	n := p.sizeOld()
	if n > MaxSize {
		return dst, fmt.Errorf("%w: %d", ErrTooLong, n)
	}
	dst = slices.Grow(dst, n)
	ports := [4]byte{byte(p.SrcPort >> 8), byte(p.SrcPort), byte(p.DstPort >> 8), byte(p.DstPort)}
	if p.is6() {
		from, to := p.Src.As16(), p.Dst.As16()
		dst = append(dst, p.Version, oldHead+2*16, FamilyINET6, p.Protocol)
		dst = append(append(append(dst, ports[:]...), from[:]...), to[:]...)
	} else {
		from, to := p.Src.Unmap().As4(), p.Dst.Unmap().As4()
		dst = append(dst, p.Version, oldHead+2*4, FamilyINET, p.Protocol)
		dst = append(append(append(dst, ports[:]...), from[:]...), to[:]...)
	}
	if p.Version == 2 {
		dst = binary.LittleEndian.AppendUint32(dst, p.Sec)
		dst = binary.LittleEndian.AppendUint32(dst, p.Usec)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(p.CaptureID))
		dst = append(dst, 0, 0)
	}
	return append(dst, p.Payload...), nil
}

// checkOld refuses what versions 1 and 2 would falsify.
func (p *Packet) checkOld() error {
	switch {
	case !p.Src.IsValid() || !p.Dst.IsValid():
		return fmt.Errorf("%w: no address", ErrField)
	case p.Type > TypeSIP:
		return fmt.Errorf("%w: type %d", ErrField, p.Type)
	case p.Payload == nil && p.CompressedPayload != nil:
		return fmt.Errorf("%w: compressed payload", ErrField)
	case p.Version == 2 && p.CaptureID > math.MaxUint16:
		return fmt.Errorf("%w: capture id %d", ErrField, p.CaptureID)
	}
	return nil
}
