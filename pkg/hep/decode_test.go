package hep_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// packet is a version 3 packet of these chunks.
func packet(t testing.TB, chunks ...[]byte) []byte {
	t.Helper()
	b := append([]byte("HEP3\x00\x00"), bytes.Join(chunks, nil)...)
	if err := hep.PatchLength(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// chunk is a generic chunk.
func chunk(typ uint16, body ...byte) []byte { return hep.AppendChunk(nil, 0, typ, body) }

func TestDecode_errors(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want error
	}{
		{"empty", "", hep.ErrNotHEP},
		{"another protocol", "GET / HTTP/1.1\r\n", hep.ErrNotHEP},
		{"one byte of the id", "H", hep.ErrTruncated},
		{"id without a length", "EEP3\x00", hep.ErrTruncated},
		{"short and not the id", "HEX", hep.ErrNotHEP},
		{"length below the head", "HEP3\x00\x05\x00", hep.ErrLength},
		{"length past the end", "HEP3\x00\xff", hep.ErrTruncated},
		{"bytes behind the packet", "HEP3\x00\x06x", hep.ErrTrailing},
		{"half a chunk head", "HEP3\x00\x09\x00\x00\x00", hep.ErrChunk},
		{"empty fixed chunk", "HEP3\x00\x0c\x00\x00\x00\x01\x00\x06", hep.ErrChunk},
		{"IPv4 address of three bytes", "HEP3\x00\x0f\x00\x00\x00\x03\x00\x09abc", hep.ErrChunk},
		{"version 1 without addresses", "\x01\x10\x02\x11\x13\xc4\x13\xc4", hep.ErrTruncated},
		{"version 2 without a time", "\x02\x10\x02\x11\x13\xc4\x13\xc4ABCDABCD12345678123", hep.ErrTruncated},
		{"version 2 of no family", "\x02\x10\x05\x11\x13\xc4\x13\xc4ABCDABCD123456781234", hep.ErrFamily},
		{"version 0", "\x00\x10\x02\x11\x13\xc4\x13\xc4ABCDABCD", hep.ErrNotHEP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := hep.Decode([]byte(tt.in)); !errors.Is(err, tt.want) {
				t.Fatalf("Decode(%q) error = %v, want %v", tt.in, err, tt.want)
			}
		})
	}
}

func TestDecode_saysWhichChunkIsWrong(t *testing.T) {
	in := packet(t, chunk(hep.ChunkProtocol, 17), hep.AppendChunk(nil, 8, 0x80, nil), chunk(hep.ChunkSec, 1, 2, 3))
	_, err := hep.Decode(in)
	var bad *hep.ChunkError
	if !errors.As(err, &bad) || bad.Vendor != 0 || bad.Type != hep.ChunkSec || bad.Offset != 19 {
		t.Fatalf("Decode error = %+v, want chunk 0x0009 at byte 19", bad)
	}
	if got, want := err.Error(), "chunk 0x0009 at byte 19: hep: bad chunk length"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	in[18] = 99 // the vendor chunk now reaches past the end
	_, err = hep.Decode(in)
	if got, want := err.Error(), "chunk 0x0080 of vendor 0x0008 at byte 13: hep: bad chunk length"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

func TestDecoder_readsNumbersOfAnyWidthWhenLenient(t *testing.T) {
	fields := []struct {
		typ   uint16
		width int
		value func(*hep.Packet) uint64
	}{
		{hep.ChunkFamily, 1, func(p *hep.Packet) uint64 { return uint64(p.Family) }},
		{hep.ChunkProtocol, 1, func(p *hep.Packet) uint64 { return uint64(p.Protocol) }},
		{hep.ChunkSrcPort, 2, func(p *hep.Packet) uint64 { return uint64(p.SrcPort) }},
		{hep.ChunkDstPort, 2, func(p *hep.Packet) uint64 { return uint64(p.DstPort) }},
		{hep.ChunkSec, 4, func(p *hep.Packet) uint64 { return uint64(p.Sec) }},
		{hep.ChunkUsec, 4, func(p *hep.Packet) uint64 { return uint64(p.Usec) }},
		{hep.ChunkType, 1, func(p *hep.Packet) uint64 { return uint64(p.Type) }},
		{hep.ChunkCaptureID, 4, func(p *hep.Packet) uint64 { return uint64(p.CaptureID) }},
		{hep.ChunkKeepAlive, 2, func(p *hep.Packet) uint64 { return uint64(p.KeepAlive) }},
		{hep.ChunkVLAN, 2, func(p *hep.Packet) uint64 { return uint64(p.VLAN) }},
	}
	strict, lenient := hep.Decoder{}, hep.Decoder{Lenient: true}
	for _, f := range fields {
		for width := range 10 {
			body := make([]byte, width)
			if width > 0 {
				body[width-1] = 7
			}
			checkWidth(t, &strict, f.typ, body, width == f.width, 0, f.value)
			fits := width >= 1 && width <= 8
			quirk := hep.QuirkWidth
			if width == f.width {
				quirk = 0
			}
			checkWidth(t, &lenient, f.typ, body, fits, quirk, f.value)
			if width > f.width && fits {
				body[width-f.width-1] = 1 // now the value needs one byte more than there is
				checkWidth(t, &lenient, f.typ, body, false, 0, f.value)
			}
		}
	}
}

func checkWidth(t *testing.T, d *hep.Decoder, typ uint16, body []byte, ok bool, quirks hep.Quirk, value func(*hep.Packet) uint64) {
	t.Helper()
	var p hep.Packet
	err := d.Decode(&p, packet(t, chunk(typ, body...)))
	switch {
	case ok && (err != nil || value(&p) != 7 || p.Quirks != quirks):
		t.Errorf("chunk 0x%02x of %d bytes, lenient %v: %d, %v, quirks %v", typ, len(body), d.Lenient, value(&p), err, p.Quirks)
	case !ok && !errors.Is(err, hep.ErrChunk):
		t.Errorf("chunk 0x%02x = %x, lenient %v: error = %v, want ErrChunk", typ, body, d.Lenient, err)
	}
}

func TestDecoder_readsMappedAddressesInIPv4ChunksWhenLenient(t *testing.T) {
	mapped := []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01")
	in := packet(t, chunk(hep.ChunkSrc4, mapped...), chunk(hep.ChunkDst4, mapped...))
	if _, err := hep.Decode(in); !errors.Is(err, hep.ErrChunk) {
		t.Errorf("strict: error = %v, want ErrChunk", err)
	}
	var p hep.Packet
	d := hep.Decoder{Lenient: true}
	if err := d.Decode(&p, in); err != nil {
		t.Fatal(err)
	}
	if p.Src.String() != "192.0.2.1" || p.Dst.String() != "192.0.2.1" || p.Quirks != hep.QuirkMapped {
		t.Errorf("addresses %v and %v, quirks %v, want 192.0.2.1 twice and mapped", p.Src, p.Dst, p.Quirks)
	}
	real6 := append([]byte{0x20, 0x01}, mapped[2:]...)
	if err := d.Decode(&p, packet(t, chunk(hep.ChunkSrc4, real6...))); !errors.Is(err, hep.ErrChunk) {
		t.Errorf("IPv6 in an IPv4 chunk: error = %v, want ErrChunk", err)
	}
}

func TestDecoder_repairsTimesWhenLenient(t *testing.T) {
	tests := []struct {
		name      string
		sec, usec uint32 // as on the wire
		wantSec   uint32
		wantUsec  uint32
		quirks    hep.Quirk
	}{
		{"good", 1700000000, 123456, 1700000000, 123456, 0},
		{"little endian", 0x00f15365, 0x40e20100, 1700000000, 123456, hep.QuirkByteOrder},
		{"little endian, told by the microseconds alone", 0x01f15365, 0x40e20100, 0x6553f101, 123456, hep.QuirkByteOrder},
		{"little endian, told by the seconds alone", 0x00f15365, 0, 1700000000, 0, hep.QuirkByteOrder},
		{"a clock never set", 400000, 0, 400000, 0, 0},
		{"whole seconds in the microseconds", 1700000000, 3000001, 1700000003, 1, hep.QuirkUsec},
		{"no room to carry", 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0},
	}
	d := hep.Decoder{Lenient: true}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in2027(t, func() {
				var p hep.Packet
				in := packet(t, chunk(hep.ChunkSec, be(tt.sec)...), chunk(hep.ChunkUsec, be(tt.usec)...))
				if err := d.Decode(&p, in); err != nil {
					t.Fatal(err)
				}
				if p.Sec != tt.wantSec || p.Usec != tt.wantUsec || p.Quirks != tt.quirks {
					t.Errorf("time %d.%06d, quirks %q, want %d.%06d, %q",
						p.Sec, p.Usec, p.Quirks, tt.wantSec, tt.wantUsec, tt.quirks)
				}
			})
		})
	}
}

func be(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func TestDecode_knowsEveryFamilyOfVersions1And2(t *testing.T) {
	body := strings.Repeat("\x20", 64)
	for family, width := range map[byte]int{2: 4, 10: 16, 23: 16, 24: 16, 26: 16, 28: 16, 30: 16} {
		for version := byte(1); version <= 2; version++ {
			in := append([]byte{version, 0, family, 17, 0, 1, 0, 2}, body...)
			p, err := hep.Decode(in)
			if err != nil {
				t.Errorf("version %d of family %d: %v", version, family, err)
				continue
			}
			want := 64 - 2*width
			if version == 2 {
				want -= 12
			}
			if len(p.Payload) != want || p.Src.BitLen() != 8*width || p.Family != family {
				t.Errorf("version %d of family %d: payload of %d, source %v, want %d bytes", version, family, len(p.Payload), p.Src, want)
			}
		}
	}
}

func TestDecode_lastOneOfTwoCounts(t *testing.T) {
	in := packet(t,
		chunk(hep.ChunkSrcPort, 0, 1), chunk(hep.ChunkSrc6, make([]byte, 16)...), chunk(hep.ChunkPayload, 'a'),
		chunk(hep.ChunkSrc4, 192, 0, 2, 1), chunk(hep.ChunkPayload, 'b', 'c'), chunk(hep.ChunkSrcPort, 0, 2))
	p, err := hep.Decode(in)
	if err != nil {
		t.Fatal(err)
	}
	if p.SrcPort != 2 || string(p.Payload) != "bc" || p.Src.String() != "192.0.2.1" {
		t.Errorf("port %d, payload %q, source %v, want the last of each", p.SrcPort, p.Payload, p.Src)
	}
	if p.Quirks != hep.QuirkDuplicate {
		t.Errorf("quirks %q, want duplicate", p.Quirks)
	}
	p, _ = hep.Decode(packet(t, chunk(hep.ChunkSrc4, 192, 0, 2, 1), chunk(hep.ChunkSrc6, make([]byte, 16)...)))
	if p.Quirks != hep.QuirkDuplicate || !p.Src.Is6() {
		t.Errorf("source %v, quirks %q, want the second address and duplicate", p.Src, p.Quirks)
	}
}

func TestDecoder_salvagesWholeChunksOfACutDatagram(t *testing.T) {
	whole := encode(t, plain(t))
	d := hep.Decoder{Lenient: true}
	for n := range whole {
		var p hep.Packet
		err := d.Decode(&p, whole[:n])
		if n < 6 {
			if want := map[bool]error{true: hep.ErrNotHEP, false: hep.ErrTruncated}[n == 0]; !errors.Is(err, want) {
				t.Errorf("%d bytes: error = %v, want %v", n, err, want)
			}
			continue
		}
		if err != nil || p.Quirks != hep.QuirkTruncated {
			t.Errorf("%d bytes: %v, quirks %q, want truncated", n, err, p.Quirks)
		}
		if got, want := p.Has(hep.FieldProtocol), n >= 6+7+7; got != want {
			t.Errorf("%d bytes: has the protocol: %v, want %v", n, got, want)
		}
		if p.Payload != nil {
			t.Errorf("%d bytes: payload %q, want none of a cut chunk", n, p.Payload)
		}
	}
	// A chunk that is longer than the packet ever was is no cut.
	bad := packet(t, chunk(hep.ChunkPayload, make([]byte, 20)...))
	bad[11]++
	var p hep.Packet
	if err := d.Decode(&p, bad[:20]); !errors.Is(err, hep.ErrChunk) {
		t.Errorf("error = %v, want ErrChunk", err)
	}
}

func TestDecoder_collectsOtherChunks(t *testing.T) {
	own := func(s string) []byte { return hep.AppendChunk(nil, hep.VendorSiptrace, 0x101, []byte(s)) }
	mos, payload := chunk(hep.ChunkMOS, 1, 185), chunk(hep.ChunkPayload, 'x')
	tests := []struct {
		name           string
		in             [][]byte
		extra, private [][]byte
		aliases        bool
	}{
		{"none", [][]byte{payload}, nil, nil, true},
		{"side by side", [][]byte{mos, mos, payload, own("a"), own("b")}, [][]byte{mos, mos}, [][]byte{own("a"), own("b")}, true},
		{"apart", [][]byte{mos, own("a"), payload, mos, mos, own("b"), payload, own("c")},
			[][]byte{mos, mos, mos}, [][]byte{own("a"), own("b"), own("c")}, false},
	}
	d := hep.Decoder{Private: hep.VendorSiptrace}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p hep.Packet
			in := packet(t, tt.in...)
			if err := d.Decode(&p, in); err != nil {
				t.Fatal(err)
			}
			extra, private := bytes.Join(tt.extra, nil), bytes.Join(tt.private, nil)
			if !bytes.Equal(p.Extra, extra) || !bytes.Equal(p.Private, private) {
				t.Errorf("extra %x, private %x, want %x, %x", p.Extra, p.Private, extra, private)
			}
			if (p.Extra == nil) != (tt.extra == nil) {
				t.Errorf("extra nil: %v", p.Extra == nil)
			}
			if n := testing.AllocsPerRun(100, func() { _ = d.Decode(&p, in) }); n != 0 {
				t.Errorf("Decode allocates %v times", n)
			}
			clear(in)
			if got := bytes.Equal(p.Private, make([]byte, len(private))); got != tt.aliases {
				t.Errorf("private aliases the packet: %v, want %v", got, tt.aliases)
			}
		})
	}
	plain, err := hep.Decode(packet(t, mos, own("a")))
	if err != nil || plain.Private != nil || len(plain.Extra) != len(mos)+len(own("a")) {
		t.Errorf("without Decoder.Private: extra %x, private %x, %v", plain.Extra, plain.Private, err)
	}
}

func TestDecode_slicesCannotGrowIntoTheirNeighbours(t *testing.T) {
	in := packet(t, chunk(hep.ChunkNode, 'n'), chunk(hep.ChunkMOS, 0, 1), chunk(hep.ChunkPayload, 'p'), chunk(hep.ChunkAuthKey, 'k'))
	before := bytes.Clone(in)
	p, err := hep.Decode(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{p.Node, p.Extra, p.Payload} {
		_ = append(b, "overwritten"...)
	}
	if !bytes.Equal(in, before) {
		t.Error("an append to a field changed the packet")
	}
}

func TestDecoder_doesNotAllocate(t *testing.T) {
	usual := usual(t)
	version2 := usual
	version2.Version = 2
	packed := usual
	packed.CompressedPayload, packed.Payload = deflate(t, "zlib", packed.Payload), nil
	d := hep.Decoder{Lenient: true, Private: hep.VendorSiptrace}
	for name, in := range map[string][]byte{
		"version 3": encode(t, usual), "version 2": encode(t, version2), "compressed": encode(t, packed),
	} {
		var p hep.Packet
		n := testing.AllocsPerRun(100, func() {
			if err := d.Decode(&p, in); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: Decode allocates %v times", name, n)
		}
	}
}

func TestDecode_inflates(t *testing.T) {
	for _, container := range []string{"zlib", "gzip", "deflate"} {
		body := deflate(t, container, []byte(options))
		p, err := hep.Decode(packet(t, chunk(hep.ChunkCompressedPayload, body...)))
		if err != nil || string(p.Payload) != options || !bytes.Equal(p.CompressedPayload, body) {
			t.Errorf("%s: payload %q, %v, want %q", container, p.Payload, err, options)
		}
		for name, bad := range map[string][]byte{
			"cut":             body[:len(body)-1],
			"a second member": append(bytes.Clone(body), body...),
			"empty":           {},
			"two bytes":       body[:2],
		} {
			p, err := hep.Decode(packet(t, chunk(hep.ChunkVLAN, 0, 5), chunk(hep.ChunkCompressedPayload, bad...)))
			if !errors.Is(err, hep.ErrInflate) || errors.Is(err, hep.ErrTooLarge) {
				t.Errorf("%s, %s: error = %v, want ErrInflate", container, name, err)
			}
			if p.Payload != nil || !bytes.Equal(p.CompressedPayload, bad) || p.VLAN != 5 {
				t.Errorf("%s, %s: payload %q, want the packet with its compressed payload", container, name, p.Payload)
			}
		}
	}
	sum := deflate(t, "zlib", []byte(options))
	sum[len(sum)-1]++
	if _, err := hep.Decode(packet(t, chunk(hep.ChunkCompressedPayload, sum...))); !errors.Is(err, hep.ErrInflate) {
		t.Errorf("wrong checksum: error = %v, want ErrInflate", err)
	}
	if _, err := hep.Decode(packet(t, chunk(hep.ChunkCompressedPayload, 0x78, 0xbb, 0, 0, 0, 0))); !errors.Is(err, hep.ErrInflate) {
		t.Errorf("preset dictionary: error = %v, want ErrInflate", err)
	}
}

func TestDecoder_boundsWhatItInflates(t *testing.T) {
	in := packet(t, chunk(hep.ChunkCompressedPayload, deflate(t, "gzip", make([]byte, 1<<20+1))...))
	for limit, want := range map[int]error{0: hep.ErrTooLarge, 1 << 20: hep.ErrTooLarge, 1<<20 + 1: nil, 1: hep.ErrTooLarge, -1: nil} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			d := hep.Decoder{MaxInflate: limit}
			var p hep.Packet
			if err := d.Decode(&p, in); !errors.Is(err, want) {
				t.Errorf("error = %v, want %v", err, want)
			}
			if got := p.Payload != nil; got != (limit > 1<<20) {
				t.Errorf("has a payload: %v", got)
			}
		})
	}
}
