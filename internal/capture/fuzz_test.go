package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// FuzzPcap holds that no file makes the source panic, hang or hand on what is
// no SIP, and that every packet is accounted for.
func FuzzPcap(f *testing.F) {
	le, be := binary.LittleEndian, binary.BigEndian
	f.Add(pcapPacket(le, pcapHead(le, 0xa1b2c3d4, layers.LinkTypeRaw), noon, 1000, udp4(f, options)))
	f.Add(enhanced(be, ifc(be, section(be), layers.LinkTypeRaw, 6), 0, 1, udp6(f, options)))
	f.Add(simple(le, ifc(le, section(le), layers.LinkTypeRaw, 0x8a), udp4(f, options)))
	f.Add(append(enhanced(le, ifc(le, section(le), layers.LinkTypeEthernet, 9), 0, 1, nil),
		enhanced(be, ifc(be, section(be), layers.LinkTypeNull, 6), 0, 1, append([]byte{0, 0, 0, 2}, udp4(f, options)...))...))
	f.Add(zip(f, pcapPacket(le, pcapHead(le, 0xa1b23c4d, layers.LinkTypeRaw), noon, 1, udp4(f, options))))
	f.Fuzz(func(t *testing.T, file []byte) {
		s := newPcap("memory", memory{bytes.NewReader(file)}, PcapOptions{}, quiet())
		var events int64
		_ = s.Run(t.Context(), trace.SinkFunc(func(_ context.Context, batch []trace.Event) error {
			events += int64(len(batch))
			for i := range batch {
				if !sipmsg.IsSIP(batch[i].Payload) {
					t.Errorf("an event without SIP: %q", batch[i].Payload)
				}
			}
			return nil
		}))
		if p := s.Progress(); p.Events != events || p.Events+p.Joined+p.Skipped != p.Packets {
			t.Errorf("%d events, counters do not add up: %+v", events, p)
		}
	})
}

// FuzzDecoder holds the same for single packets of every link type.
func FuzzDecoder(f *testing.F) {
	eth := func(ls ...gopacket.SerializableLayer) []byte { return build(f, ls...) }
	f.Add(uint16(layers.LinkTypeEthernet), eth(ethernet(tagQinQ), vlan(1, tagIEEE8021Q), vlan(2, layers.EthernetTypeIPv4), gopacket.Payload(udp4(f, options))), 60)
	f.Add(uint16(layers.LinkTypeRaw), udp6(f, options), 20)
	f.Add(uint16(layers.LinkTypeRaw), fragment4(f, 1, udpBytes(options), 0, 64), 84)
	f.Add(uint16(layers.LinkTypeRaw), append(fragment4(f, 1, udpBytes(options), 0, 64), fragment4(f, 1, udpBytes(options), 64, 8+len(options))...), 84)
	f.Add(uint16(layers.LinkTypeRaw), append(fragment6(f, 1, udpBytes(options), 0, 64), fragment6(f, 1, udpBytes(options), 64, 8+len(options))...), 120)
	f.Add(uint16(layers.LinkTypeLinuxSLL2), []byte{8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6}, 12)
	f.Fuzz(func(t *testing.T, link uint16, b []byte, split int) {
		var joined, lost int
		d := decoder{fragments: newFragments(func(n int) { joined += n }, func(_ skip, n int) { lost += n })}
		packets := [][]byte{b}
		if split > 0 && split < len(b) {
			packets = [][]byte{b[:split], b[split:], b[:split], b}
		}
		out := 0
		for _, p := range packets {
			if got, why := d.decode(layers.LinkType(link), p, noon); got != nil || why != taken {
				out++
			}
		}
		d.fragments.giveUpAll()
		if out+joined+lost != len(packets) {
			t.Errorf("%d done with, %d joined, %d lost, want %d in all", out, joined, lost, len(packets))
		}
		if d.fragments.bytes != 0 {
			t.Errorf("%d bytes of fragments are left", d.fragments.bytes)
		}
	})
}
