package capture

import (
	"bytes"
	"context"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// discard is a sink that takes everything.
var discard = trace.SinkFunc(func(context.Context, []trace.Event) error { return nil })

// TestPcap_allocatesNothingPerPacket compares files of different lengths.
func TestPcap_allocatesNothingPerPacket(t *testing.T) {
	packets := map[string][]byte{
		"Ethernet, VLAN, IPv4": build(t, ethernet(tagIEEE8021Q), vlan(42, layers.EthernetTypeIPv4), gopacket.Payload(udp4(t, options))),
		"Ethernet, IPv6":       build(t, ethernet(layers.EthernetTypeIPv6), gopacket.Payload(udp6(t, options))),
		"no SIP":               build(t, ethernet(layers.EthernetTypeIPv4), gopacket.Payload(udp4(t, "\x80\x00"))),
		"TCP":                  build(t, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolTCP), gopacket.Payload(options)),
	}
	for name, packet := range packets {
		run := func(n int) float64 {
			frames := make([]frame, n)
			for i := range frames {
				frames[i] = at(packet)
			}
			file := pcap(t, layers.LinkTypeEthernet, frames...)
			return testing.AllocsPerRun(5, func() {
				s := newPcap("memory", memory{bytes.NewReader(file)}, PcapOptions{}, quiet())
				if err := s.Run(t.Context(), discard); err != nil {
					t.Fatal(err)
				}
			})
		}
		// What begins and ends a Run allocates; a thousand packets more do not.
		if few, many := run(10), run(1010); many-few > 5 {
			t.Errorf("%s: %v allocations for 10 packets and %v for 1010", name, few, many)
		}
	}
}

func BenchmarkPcap(b *testing.B) {
	message := options + string(bytes.Repeat([]byte("a"), 800-len(options)))
	packet := build(b, ethernet(layers.EthernetTypeIPv4), gopacket.Payload(udp4(b, message)))
	frames := make([]frame, 20000)
	for i := range frames {
		frames[i] = at(packet)
	}
	file := pcap(b, layers.LinkTypeEthernet, frames...)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += len(frames) {
		s := newPcap("memory", memory{bytes.NewReader(file)}, PcapOptions{}, quiet())
		if err := s.Run(b.Context(), discard); err != nil {
			b.Fatal(err)
		}
	}
}
