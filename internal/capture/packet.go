package capture

import (
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	tagIEEE8021Q  layers.EthernetType = 0x8100
	tagIEEE8021AD layers.EthernetType = 0x88a8
	tagQinQ       layers.EthernetType = 0x9100 // before IEEE 802.1ad

	// Link types of raw IP: one is official, the others are what the BSDs
	// and the specific families write.
	linkRaw12 layers.LinkType = 12
	linkRaw14 layers.LinkType = 14
)

// datagram is the UDP payload of a packet, or of several that were fragments.
type datagram struct {
	src, dst netip.AddrPort
	vlan     uint16 // the innermost tag
	payload  []byte
	cut      bool // the payload was longer
}

// decoder takes datagrams out of packets. What it returns aliases the packet,
// unless that completes fragments. It allocates for fragments only.
type decoder struct {
	fragments *fragments

	eth   layers.Ethernet
	sll   layers.LinuxSLL
	sll2  layers.LinuxSLL2
	loop  layers.Loopback
	tag   layers.Dot1Q
	ip4   layers.IPv4
	ip6   layers.IPv6
	ext   layers.IPv6ExtensionSkipper
	part6 layers.IPv6Fragment
	udp   layers.UDP

	at   time.Time // of the packet
	vlan uint16
	out  datagram
}

// decode takes the datagram out of a packet captured at a time. If the skip is
// nought and the datagram is nil, the packet is a fragment that waits.
func (d *decoder) decode(link layers.LinkType, packet []byte, at time.Time) (*datagram, skip) {
	d.at, d.vlan = at, 0
	switch link {
	case layers.LinkTypeEthernet:
		if d.eth.DecodeFromBytes(packet, gopacket.NilDecodeFeedback) != nil {
			return nil, skipUndecodable
		}
		return d.ethertype(d.eth.EthernetType, d.eth.Payload)
	case layers.LinkTypeLinuxSLL:
		if d.sll.DecodeFromBytes(packet, gopacket.NilDecodeFeedback) != nil {
			return nil, skipUndecodable
		}
		return d.ethertype(d.sll.EthernetType, d.sll.Payload)
	case layers.LinkTypeLinuxSLL2:
		if d.sll2.DecodeFromBytes(packet, gopacket.NilDecodeFeedback) != nil {
			return nil, skipUndecodable
		}
		return d.ethertype(d.sll2.ProtocolType, d.sll2.Payload)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		if d.loop.DecodeFromBytes(packet, gopacket.NilDecodeFeedback) != nil {
			return nil, skipUndecodable
		}
		return d.raw(d.loop.Payload)
	case layers.LinkTypeRaw, layers.LinkTypeIPv4, layers.LinkTypeIPv6, linkRaw12, linkRaw14:
		return d.raw(packet)
	}
	return nil, skipLink
}

// ethertype decodes what an EtherType says, behind any number of VLAN tags.
func (d *decoder) ethertype(typ layers.EthernetType, b []byte) (*datagram, skip) {
	for typ == tagIEEE8021Q || typ == tagIEEE8021AD || typ == tagQinQ {
		if d.tag.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
			return nil, skipUndecodable
		}
		d.vlan = d.tag.VLANIdentifier
		typ, b = d.tag.Type, d.tag.Payload
	}
	switch typ {
	case layers.EthernetTypeIPv4:
		return d.ipv4(b)
	case layers.EthernetTypeIPv6:
		return d.ipv6(b)
	}
	return nil, skipNotIP
}

// raw decodes IP of either version.
func (d *decoder) raw(b []byte) (*datagram, skip) {
	switch {
	case len(b) == 0:
		return nil, skipUndecodable
	case b[0]>>4 == 4:
		return d.ipv4(b)
	case b[0]>>4 == 6:
		return d.ipv6(b)
	}
	return nil, skipNotIP
}

func (d *decoder) ipv4(b []byte) (*datagram, skip) {
	ip := &d.ip4
	if ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
		return nil, skipUndecodable
	}
	if why := transport(ip.Protocol); why != taken {
		return nil, why
	}
	if ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0 {
		whole, why := d.fragments.add4(ip, d.at)
		if whole == nil {
			return nil, why
		}
		ip = whole
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	return d.datagram(src, dst, ip.Payload)
}

func (d *decoder) ipv6(b []byte) (*datagram, skip) {
	ip := &d.ip6
	if ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
		return nil, skipUndecodable
	}
	next := ip.NextHeader
	if ip.HopByHop != nil {
		next = ip.HopByHop.NextHeader
	}
	payload, why := d.extensions(next, ip.Payload)
	if payload == nil {
		return nil, why
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	return d.datagram(src, dst, payload)
}

// extensions walks the headers between IPv6 and UDP. The payload is nil if
// there is no UDP, or not yet.
func (d *decoder) extensions(next layers.IPProtocol, b []byte) (payload []byte, why skip) {
	for {
		switch next {
		case layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Destination:
			if d.ext.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
				return nil, skipUndecodable
			}
			next, b = d.ext.NextHeader, d.ext.Payload
		case layers.IPProtocolIPv6Fragment:
			if d.part6.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
				return nil, skipUndecodable
			}
			next, b = d.part6.NextHeader, d.part6.Payload
			if d.part6.FragmentOffset == 0 && !d.part6.MoreFragments {
				continue // an atomic fragment: whole as it is
			}
			whole, why := d.fragments.add6(&d.ip6, &d.part6, d.at)
			if whole == nil {
				return nil, why
			}
			next, b = whole.NextHeader, whole.Payload
		default:
			if why := transport(next); why != taken {
				return nil, why
			}
			return b, taken
		}
	}
}

// transport is taken for UDP, and else the reason for not.
func transport(p layers.IPProtocol) skip {
	switch p {
	case layers.IPProtocolUDP:
		return taken
	case layers.IPProtocolTCP:
		return skipTCP
	}
	return skipNotUDP
}

// datagram decodes the UDP in b.
func (d *decoder) datagram(src, dst netip.Addr, b []byte) (*datagram, skip) {
	if d.udp.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
		return nil, skipUndecodable
	}
	d.out = datagram{
		src:     netip.AddrPortFrom(src, uint16(d.udp.SrcPort)),
		dst:     netip.AddrPortFrom(dst, uint16(d.udp.DstPort)),
		vlan:    d.vlan,
		payload: d.udp.Payload,
		cut:     int(d.udp.Length) > len(b),
	}
	return &d.out, taken
}
