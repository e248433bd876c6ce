package hep

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Size is the length of the packet that Append would write.
func (p *Packet) Size() int {
	if p.Version == 3 {
		return p.size3(p.fields())
	}
	return p.sizeOld()
}

// Append appends the packet, encoded as p.Version says, to dst and returns the
// longer slice. It allocates only if dst has no room. On an error, which is
// ErrTooLong, ErrVersion or ErrField, it returns dst as it was.
//
// Version 3 carries every field that is present, in the order of the usual
// agents: the numbers, the auth key, the correlation id, the VLAN and the
// name, then Extra, the payload, Private. The IP protocol and the type are
// always there, for some receivers cannot do without. There is one address
// family to a packet: an IPv4 address is written as IPv6 only beside an IPv6
// address. CompressedPayload is written only if Payload is absent.
//
// Versions 1 and 2 carry addresses, ports, the IP protocol and a SIP payload,
// version 2 also the time and 16 bits of capture id. What they have no room
// for is left out, unless that would falsify the packet: another type, a
// longer capture id, missing addresses or a payload that is only there
// compressed are ErrField.
func (p *Packet) Append(dst []byte) ([]byte, error) {
	switch p.Version {
	case 1, 2:
		return p.appendOld(dst)
	case 3:
		return p.append3(dst)
	}
	return dst, fmt.Errorf("%w %d", ErrVersion, p.Version)
}

// size3 is the length in version 3 with the fields f.
func (p *Packet) size3(f Field) int {
	const u8, u16, u32 = headSize + 1, headSize + 2, headSize + 4
	n := headSize + u8 + u8 + len(p.Extra) + len(p.Private)
	n += size(f, FieldSrcPort, u16) + size(f, FieldDstPort, u16)
	n += size(f, FieldSec, u32) + size(f, FieldUsec, u32)
	n += size(f, FieldCaptureID, u32) + size(f, FieldKeepAlive, u16) + size(f, FieldVLAN, u16)
	n += size(f, FieldAuthKey, headSize+len(p.AuthKey))
	n += size(f, FieldCorrelationID, headSize+len(p.CorrelationID))
	n += size(f, FieldNode, headSize+len(p.Node))
	addr := headSize + 4
	if p.is6() {
		addr = headSize + 16
	}
	n += size(f, FieldSrc, addr) + size(f, FieldDst, addr)
	if f&(FieldFamily|FieldSrc|FieldDst) != 0 {
		n += u8
	}
	if f&FieldPayload != 0 {
		return n + headSize + len(p.Payload)
	}
	return n + size(f, FieldCompressedPayload, headSize+len(p.CompressedPayload))
}

// size is n if field is in f.
func size(f, field Field, n int) int {
	if f&field == 0 {
		return 0
	}
	return n
}

// is6 reports whether the packet has an address that is none of IPv4.
func (p *Packet) is6() bool { return real6(p.Src) || real6(p.Dst) }

func real6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// append3 appends the packet in version 3.
func (p *Packet) append3(dst []byte) ([]byte, error) {
	f := p.fields()
	n := p.size3(f)
	if n > MaxSize {
		return dst, fmt.Errorf("%w: %d", ErrTooLong, n)
	}
	dst = slices.Grow(dst, n)
	dst = append(dst, 'H', 'E', 'P', '3', byte(n>>8), byte(n))
	dst = p.appendIP(dst, f)
	if f&FieldSrcPort != 0 {
		dst = append16(dst, ChunkSrcPort, p.SrcPort)
	}
	if f&FieldDstPort != 0 {
		dst = append16(dst, ChunkDstPort, p.DstPort)
	}
	if f&FieldSec != 0 {
		dst = append32(dst, ChunkSec, p.Sec)
	}
	if f&FieldUsec != 0 {
		dst = append32(dst, ChunkUsec, p.Usec)
	}
	dst = append8(dst, ChunkType, p.Type)
	if f&FieldCaptureID != 0 {
		dst = append32(dst, ChunkCaptureID, p.CaptureID)
	}
	if f&FieldKeepAlive != 0 {
		dst = append16(dst, ChunkKeepAlive, p.KeepAlive)
	}
	if f&FieldAuthKey != 0 {
		dst = AppendChunk(dst, VendorGeneric, ChunkAuthKey, p.AuthKey)
	}
	if f&FieldCorrelationID != 0 {
		dst = AppendChunk(dst, VendorGeneric, ChunkCorrelationID, p.CorrelationID)
	}
	if f&FieldVLAN != 0 {
		dst = append16(dst, ChunkVLAN, p.VLAN)
	}
	if f&FieldNode != 0 {
		dst = AppendChunk(dst, VendorGeneric, ChunkNode, p.Node)
	}
	dst = append(dst, p.Extra...)
	switch {
	case f&FieldPayload != 0:
		dst = AppendChunk(dst, VendorGeneric, ChunkPayload, p.Payload)
	case f&FieldCompressedPayload != 0:
		dst = AppendChunk(dst, VendorGeneric, ChunkCompressedPayload, p.CompressedPayload)
	}
	return append(dst, p.Private...), nil
}

// appendIP appends the family, the IP protocol and the addresses.
func (p *Packet) appendIP(dst []byte, f Field) []byte {
	six := p.is6()
	if f&(FieldFamily|FieldSrc|FieldDst) != 0 {
		dst = append8(dst, ChunkFamily, p.family(f, six))
	}
	dst = append8(dst, ChunkProtocol, p.Protocol)
	if six {
		dst = append6(dst, ChunkSrc6, p.Src)
		return append6(dst, ChunkDst6, p.Dst)
	}
	dst = append4(dst, ChunkSrc4, p.Src)
	return append4(dst, ChunkDst4, p.Dst)
}

// family is the address family to write: that of the addresses if there are
// any, and in any case by its Linux number.
func (p *Packet) family(f Field, six bool) uint8 {
	switch {
	case six:
		return FamilyINET6
	case f&(FieldSrc|FieldDst) != 0:
		return FamilyINET
	case isINET6(p.Family):
		return FamilyINET6
	}
	return p.Family
}

func append8(dst []byte, typ byte, v uint8) []byte {
	return append(dst, 0, 0, 0, typ, 0, headSize+1, v)
}

func append16(dst []byte, typ byte, v uint16) []byte {
	return append(dst, 0, 0, 0, typ, 0, headSize+2, byte(v>>8), byte(v))
}

func append32(dst []byte, typ byte, v uint32) []byte {
	dst = append(dst, 0, 0, 0, typ, 0, headSize+4)
	return binary.BigEndian.AppendUint32(dst, v)
}

func append4(dst []byte, typ byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return dst
	}
	v := a.Unmap().As4()
	dst = append(dst, 0, 0, 0, typ, 0, headSize+4)
	return append(dst, v[:]...)
}

func append6(dst []byte, typ byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return dst
	}
	v := a.As16()
	dst = append(dst, 0, 0, 0, typ, 0, headSize+16)
	return append(dst, v[:]...)
}
