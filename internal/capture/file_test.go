package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// pcapHead and pcapPacket write pcap by hand, in either byte order.
func pcapHead(o binary.AppendByteOrder, magic uint32, link layers.LinkType) []byte {
	b := o.AppendUint32(nil, magic)
	b = o.AppendUint16(o.AppendUint16(b, 2), 4)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	return o.AppendUint32(o.AppendUint32(b, 65535), uint32(link))
}

func pcapPacket(o binary.AppendByteOrder, b []byte, at time.Time, fraction time.Duration, data []byte) []byte {
	b = o.AppendUint32(b, uint32(at.Unix()))
	b = o.AppendUint32(b, uint32(at.Nanosecond()/int(fraction)))
	b = o.AppendUint32(o.AppendUint32(b, uint32(len(data))), uint32(len(data)))
	return append(b, data...)
}

// block appends a block of pcapng.
func block(o binary.AppendByteOrder, b []byte, typ uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	n := uint32(12 + len(body))
	b = o.AppendUint32(o.AppendUint32(b, typ), n)
	return o.AppendUint32(append(b, body...), n)
}

// section, ifc, enhanced and simple are blocks of pcapng.
func section(o binary.AppendByteOrder) []byte {
	body := o.AppendUint32(nil, 0x1a2b3c4d)
	body = o.AppendUint16(o.AppendUint16(body, 1), 0)
	return block(o, nil, 0x0a0d0d0a, o.AppendUint64(body, 1<<64-1))
}

func ifc(o binary.AppendByteOrder, b []byte, link layers.LinkType, resolution byte) []byte {
	body := o.AppendUint16(nil, uint16(link))
	body = append(body, 0, 0, 0, 0, 0, 0)
	body = o.AppendUint16(o.AppendUint16(body, 9), 1) // if_tsresol
	body = append(body, resolution, 0, 0, 0)
	return block(o, b, 1, append(body, 0, 0, 0, 0))
}

func enhanced(o binary.AppendByteOrder, b []byte, ifc int, units uint64, data []byte) []byte {
	body := o.AppendUint32(nil, uint32(ifc))
	body = o.AppendUint32(o.AppendUint32(body, uint32(units>>32)), uint32(units))
	body = o.AppendUint32(o.AppendUint32(body, uint32(len(data))), uint32(len(data)))
	return block(o, b, 6, append(body, data...))
}

func simple(o binary.AppendByteOrder, b []byte, data []byte) []byte {
	return block(o, b, 3, append(o.AppendUint32(nil, uint32(len(data))), data...))
}

func zip(t testing.TB, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

func TestPcap_readsEveryFormat(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	packet, ether := udp4(t, options), build(t, ethernet(layers.EthernetTypeIPv4), gopacket.Payload(udp4(t, options)))
	mixed := func(o binary.AppendByteOrder) []byte {
		b := ifc(o, section(o), layers.LinkTypeRaw, 6)
		b = ifc(o, b, layers.LinkTypeEthernet, 9)
		b = enhanced(o, b, 0, uint64(noon.UnixMicro()), packet)
		b = block(o, b, 0x0bad, []byte("a block that nobody knows"))
		return enhanced(o, b, 1, uint64(noon.UnixNano()), ether)
	}
	var written bytes.Buffer
	w, err := pcapgo.NewNgWriter(&written, layers.LinkTypeRaw)
	if err != nil {
		t.Fatal(err)
	}
	ci := gopacket.CaptureInfo{Timestamp: noon, Length: len(packet), CaptureLength: len(packet)}
	if err := errors.Join(w.WritePacket(ci, packet), w.Flush()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		file []byte
		want int
	}{
		{"pcap, µs, little endian", pcapPacket(le, pcapHead(le, 0xa1b2c3d4, layers.LinkTypeRaw), noon, time.Microsecond, packet), 1},
		{"pcap, µs, big endian", pcapPacket(be, pcapHead(be, 0xa1b2c3d4, layers.LinkTypeRaw), noon, time.Microsecond, packet), 1},
		{"pcap, ns, little endian", pcapPacket(le, pcapHead(le, 0xa1b23c4d, layers.LinkTypeRaw), noon, time.Nanosecond, packet), 1},
		{"pcap, ns, big endian", pcapPacket(be, pcapHead(be, 0xa1b23c4d, layers.LinkTypeRaw), noon, time.Nanosecond, packet), 1},
		{"pcap of nothing", pcapHead(le, 0xa1b2c3d4, layers.LinkTypeRaw), 0},
		{"pcapng of nothing", section(le), 0},
		{"pcapng, two interfaces, little endian", mixed(le), 2},
		{"pcapng, two interfaces, big endian", mixed(be), 2},
		{"pcapng, two sections", append(mixed(le), mixed(be)...), 4},
		{"pcapng of another writer", written.Bytes(), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, file := range [][]byte{tt.file, zip(t, tt.file)} {
				events, _ := read(t, write(t, file))
				if len(events) != tt.want {
					t.Fatalf("got %d events, want %d", len(events), tt.want)
				}
				for _, e := range events {
					if !e.Time.Equal(noon) || string(e.Payload) != options || e.Src != src4 {
						t.Errorf("got %+v", e)
					}
				}
			}
		})
	}
}

func TestPcap_givesPacketsWithoutTimeThatOfReading(t *testing.T) {
	le := binary.LittleEndian
	before := time.Now()
	events, _ := read(t, write(t, simple(le, ifc(le, section(le), layers.LinkTypeRaw, 6), udp4(t, options))))
	if len(events) != 1 {
		t.Fatalf("got %d events, want 1", len(events))
	}
	if at := events[0].Time; at.Before(before) || at.After(time.Now()) {
		t.Errorf("time is %v", at)
	}
}

// TestPcap_deliversWhatIsReadable cuts files at every byte.
func TestPcap_deliversWhatIsReadable(t *testing.T) {
	le := binary.LittleEndian
	packet := udp4(t, options)
	head := pcapHead(le, 0xa1b2c3d4, layers.LinkTypeRaw)
	one := pcapPacket(le, head, noon, time.Microsecond, packet)
	two := pcapPacket(le, bytes.Clone(one), noon, time.Microsecond, packet)
	ngHead := ifc(le, section(le), layers.LinkTypeRaw, 6)
	ngOne := enhanced(le, ngHead, 0, 1, packet)
	ngTwo := enhanced(le, bytes.Clone(ngOne), 0, 2, packet)
	for _, f := range []struct {
		name string
		file []byte
		ends map[int]int // where a file may end, with its packets
	}{
		{"pcap", two, map[int]int{len(head): 0, len(one): 1, len(two): 2}},
		{"pcapng", ngTwo, map[int]int{len(section(le)): 0, len(ngHead): 0, len(ngOne): 1, len(ngTwo): 2}},
	} {
		t.Run(f.name, func(t *testing.T) {
			packets := 0
			for n := range len(f.file) + 1 {
				events, err := readBytes(t, f.file[:n])
				whole, end := f.ends[n]
				packets = max(packets, whole)
				if errors.Is(err, errFormat) {
					if n >= len(f.file)/3 {
						t.Fatalf("%d bytes: %v", n, err)
					}
					continue
				}
				if end != (err == nil) || !end && !errors.Is(err, ErrCut) {
					t.Fatalf("%d bytes: got %v, proper end: %v", n, err, end)
				}
				if len(events) != packets {
					t.Fatalf("%d bytes: got %d events, want %d", n, len(events), packets)
				}
			}
		})
		t.Run(f.name+", packed", func(t *testing.T) {
			packed := zip(t, f.file)
			for n := range len(packed) {
				if _, err := readBytes(t, packed[:n]); !errors.Is(err, ErrCut) && !errors.Is(err, errFormat) {
					t.Fatalf("%d bytes of %d: got %v, want a word of it", n, len(packed), err)
				}
			}
		})
	}
}

// readBytes runs a source on bytes, whose events must all be the same.
func readBytes(t *testing.T, b []byte) ([]trace.Event, error) {
	t.Helper()
	s := newPcap("memory", memory{bytes.NewReader(b)}, PcapOptions{}, quiet())
	var events collected
	err := s.Run(t.Context(), &events)
	for _, e := range events {
		if string(e.Payload) != options {
			t.Errorf("got %q", e.Payload)
		}
	}
	return events, err
}

func TestPcap_tellsWhereAFileIsDamaged(t *testing.T) {
	le := binary.LittleEndian
	file := pcapPacket(le, pcapHead(le, 0xa1b2c3d4, layers.LinkTypeRaw), noon, time.Microsecond, udp4(t, options))
	file = append(file, bytes.Repeat([]byte{0xff}, 64)...)
	events, err := readBytes(t, file)
	if len(events) != 1 || err == nil || errors.Is(err, ErrCut) || errors.Is(err, io.EOF) {
		t.Errorf("got %d events and %v, want 1 and what is wrong", len(events), err)
	}
}
