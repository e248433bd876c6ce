package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// options is a SIP message.
const options = "OPTIONS sip:bob@example.com SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n" +
	"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\n" +
	"Call-ID: one@192.0.2.1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

	src4, dst4 = netip.MustParseAddrPort("192.0.2.1:5060"), netip.MustParseAddrPort("198.51.100.2:5070")
	src6, dst6 = netip.MustParseAddrPort("[2001:db8::1]:5060"), netip.MustParseAddrPort("[2001:db8::2]:5070")
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// read runs a source on a file and returns its events and where it ended.
func read(t *testing.T, path string) ([]trace.Event, Progress) {
	t.Helper()
	events, p, err := run(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return events, p
}

// run is read for files that end in an error.
func run(t *testing.T, path string) ([]trace.Event, Progress, error) {
	t.Helper()
	s, err := OpenPcap(path, PcapOptions{}, prometheus.NewRegistry(), quiet())
	if err != nil {
		return nil, Progress{}, err
	}
	defer s.Close()
	var all collected
	err = s.Run(t.Context(), &all)
	return all, s.Progress(), err
}

// collected is a sink that keeps a copy of everything.
type collected []trace.Event

func (c *collected) Write(_ context.Context, events []trace.Event) error {
	for i := range events {
		*c = append(*c, events[i].Clone())
	}
	return nil
}

// write writes a file.
func write(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.pcap")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// memory is an input that is no file.
type memory struct{ io.Reader }

func (memory) Close() error                    { return nil }
func (memory) SetReadDeadline(time.Time) error { return nil }

// frame is a packet of a file that is to be written.
type frame struct {
	at   time.Time
	data []byte
	cut  int // bytes that the file does not have
}

// at is a frame of noon.
func at(data []byte) frame { return frame{at: noon, data: data} }

// pcap is a file of one link type.
func pcap(t testing.TB, link layers.LinkType, frames ...frame) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(262144, link); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		ci := gopacket.CaptureInfo{Timestamp: f.at, Length: len(f.data), CaptureLength: len(f.data) - f.cut}
		if err := w.WritePacket(ci, f.data[:ci.CaptureLength]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// build makes a packet of layers.
func build(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, opts, ls...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func ethernet(typ layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: typ,
	}
}

func vlan(id uint16, typ layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: id, Type: typ}
}

func ipv4(protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: protocol,
		SrcIP: src4.Addr().AsSlice(), DstIP: dst4.Addr().AsSlice()}
}

func ipv6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next,
		SrcIP: src6.Addr().AsSlice(), DstIP: dst6.Addr().AsSlice()}
}

// udp4 is a UDP datagram in an IPv4 packet.
func udp4(t testing.TB, payload string) []byte {
	ip := ipv4(layers.IPProtocolUDP)
	return build(t, ip, udp(t, ip), gopacket.Payload(payload))
}

// udp6 is a UDP datagram in an IPv6 packet.
func udp6(t testing.TB, payload string) []byte {
	ip := ipv6(layers.IPProtocolUDP)
	return build(t, ip, udp(t, ip), gopacket.Payload(payload))
}

func udp(t testing.TB, ip gopacket.NetworkLayer) *layers.UDP {
	t.Helper()
	u := &layers.UDP{SrcPort: 5060, DstPort: 5070}
	if err := u.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return u
}

// udpBytes is a UDP datagram without IP.
func udpBytes(payload string) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b[0:], 5060)
	binary.BigEndian.PutUint16(b[2:], 5070)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

// fragment4 is the fragment [from, to) of an IPv4 datagram with this UDP in it.
func fragment4(t testing.TB, id uint16, datagram []byte, from, to int) []byte {
	ip := ipv4(layers.IPProtocolUDP)
	ip.Id, ip.FragOffset = id, uint16(from/8)
	if to < len(datagram) {
		ip.Flags = layers.IPv4MoreFragments
	}
	return build(t, ip, gopacket.Payload(datagram[from:to]))
}

// fragment6 is fragment4 for IPv6, behind a header of destination options.
func fragment6(t testing.TB, id uint32, datagram []byte, from, to int) []byte {
	head := &layers.IPv6Fragment{NextHeader: layers.IPProtocolUDP, Identification: id,
		FragmentOffset: uint16(from / 8), MoreFragments: to < len(datagram)}
	return build(t, ipv6(layers.IPProtocolIPv6Destination), destinationOptions(layers.IPProtocolIPv6Fragment),
		head, gopacket.Payload(datagram[from:to]))
}

// destinationOptions is an IPv6 header of 8 bytes that says nothing.
func destinationOptions(next layers.IPProtocol) gopacket.Payload {
	return gopacket.Payload{byte(next), 0, 1, 4, 0, 0, 0, 0}
}
