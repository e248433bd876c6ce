package export

import (
	"encoding/binary"
	"net/netip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A packet is made up like this; checksums are right, so that no reader
// complains:
//
//	02:00:00:00:00:02 | 02:00:00:00:00:01 | [8100 VLAN] | 0800 or 86dd      Ethernet
//	… | source | destination                                                IPv4 or IPv6
//	source port | destination port | length | checksum                      UDP
//	the message
//
// An address that is not known is 0.0.0.0 or ::, and port 0. Where only one of
// the two is IPv6 the other one is written as ::ffff:a.b.c.d.
const (
	ethernetSize = 14
	tagSize      = 4
	ipv4Size     = 20
	ipv6Size     = 40
	udpSize      = 8

	maxDatagram = 1<<16 - 1 // what the length fields of IPv4 (with its head), IPv6 and UDP (without) can say

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	protoUDP  = 17
	hops      = 64
)

// packets makes packets, in memory that is used again.
type packets struct{ b []byte }

func newPackets() *packets { return &packets{} }

// build returns the packet around the message of e, valid until the next call.
// What a datagram has no room for is left off, and cut is true then. Such a
// packet does not pretend to be one that the capture has cut: Wireshark would
// not look at the header fields of that.
func (p *packets) build(e *trace.Event) (packet []byte, cut bool) {
	src, dst := family(e.Src.Addr(), e.Dst.Addr())
	room := maxDatagram - udpSize
	if src.Is4() {
		room -= ipv4Size
	}
	payload := e.Payload
	if cut = len(payload) > room; cut {
		payload = payload[:room]
	}
	p.ethernet(e.VLAN, src.Is4())
	if src.Is4() {
		p.ipv4(src, dst, udpSize+len(payload))
	} else {
		p.ipv6(src, dst, udpSize+len(payload))
	}
	p.udp(src, dst, e.Src.Port(), e.Dst.Port(), payload)
	return p.b, cut
}

// family returns both addresses in one family: IPv4 if neither is of the other.
func family(src, dst netip.Addr) (s, d netip.Addr) {
	src, dst = src.Unmap().WithZone(""), dst.Unmap().WithZone("")
	if src.Is6() || dst.Is6() {
		return netip.AddrFrom16(src.As16()), netip.AddrFrom16(dst.As16())
	}
	if !src.IsValid() {
		src = netip.IPv4Unspecified()
	}
	if !dst.IsValid() {
		dst = netip.IPv4Unspecified()
	}
	return src, dst
}

func (p *packets) ethernet(vlan uint16, v4 bool) {
	p.b = append(p.b[:0],
		2, 0, 0, 0, 0, 2,
		2, 0, 0, 0, 0, 1)
	if vlan != 0 {
		p.u16(etherVLAN)
		p.u16(int(vlan))
	}
	if v4 {
		p.u16(etherIPv4)
	} else {
		p.u16(etherIPv6)
	}
}

func (p *packets) ipv4(src, dst netip.Addr, payload int) {
	at := len(p.b)
	p.b = append(p.b, 0x45, 0)
	p.u16(ipv4Size + payload)
	p.b = append(p.b, 0, 0, 0x40, 0, hops, protoUDP, 0, 0) // not fragmented; the checksum follows
	s, d := src.As4(), dst.As4()
	p.b = append(append(p.b, s[:]...), d[:]...)
	binary.BigEndian.PutUint16(p.b[at+10:], fold(sum(0, p.b[at:])))
}

func (p *packets) ipv6(src, dst netip.Addr, payload int) {
	p.b = append(p.b, 0x60, 0, 0, 0)
	p.u16(payload)
	p.b = append(p.b, protoUDP, hops)
	s, d := src.As16(), dst.As16()
	p.b = append(append(p.b, s[:]...), d[:]...)
}

func (p *packets) udp(src, dst netip.Addr, from, to uint16, payload []byte) {
	addresses := 2 * 16
	if src.Is4() {
		addresses = 2 * 4
	}
	pseudo := sum(protoUDP+uint32(udpSize+len(payload)), p.b[len(p.b)-addresses:])
	at := len(p.b)
	p.u16(int(from))
	p.u16(int(to))
	p.u16(udpSize + len(payload))
	p.u16(0)
	p.b = append(p.b, payload...)
	check := fold(sum(pseudo, p.b[at:]))
	if check == 0 {
		check = 0xffff // nought means none
	}
	binary.BigEndian.PutUint16(p.b[at+6:], check)
}

func (p *packets) u16(n int) { p.b = binary.BigEndian.AppendUint16(p.b, uint16(n)) }

// sum adds b to an Internet checksum (RFC 1071) that is not folded yet.
func sum(n uint32, b []byte) uint32 {
	for len(b) >= 2 {
		n += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		n += uint32(b[0]) << 8
	}
	return n
}

// fold ends a checksum. At most 65,535 bytes went in, so the sum has not overflowed.
func fold(n uint32) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}
