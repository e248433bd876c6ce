package hep_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

func TestAppend_writesChunksInTheOrderOfTheUsualAgents(t *testing.T) {
	p := usual(t)
	p.CorrelationID, p.KeepAlive = []byte("cid"), 30
	p.Extra = chunk(hep.ChunkTOS, 0xb8)
	p.Private = hep.AppendChunk(nil, hep.VendorSiptrace, 0x101, []byte("id"))
	want := []uint16{1, 2, 3, 4, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0x11, 0x12, 0x13, 0x18, 0xf, 0x101}
	all := chunksOf(t, encode(t, p))
	for i, c := range all {
		if i >= len(want) || c.Type != want[i] {
			t.Errorf("chunk %d is 0x%x", i, c.Type)
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d chunks, want %d", len(all), len(want))
	}
	agree(t, &p)
}

func TestAppend_alwaysWritesProtocolAndType(t *testing.T) {
	got := encode(t, hep.Packet{Version: 3})
	want := packet(t, chunk(hep.ChunkProtocol, 0), chunk(hep.ChunkType, 0))
	if !bytes.Equal(got, want) {
		t.Errorf("Append = %x, want %x", got, want)
	}
}

func TestAppend_tellsZeroFromAbsent(t *testing.T) {
	p := hep.Packet{Version: 3}
	p.Set(hep.FieldNumbers)
	p.Payload, p.Node = []byte{}, []byte{}
	got, err := hep.Decode(encode(t, p))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Has(hep.FieldNumbers | hep.FieldPayload | hep.FieldNode) {
		t.Errorf("fields %v, want all numbers, payload and node", describe(&got))
	}
	if got.Has(hep.FieldSrc) || got.Has(hep.FieldAuthKey) || got.Has(hep.FieldNode|hep.FieldCorrelationID) {
		t.Errorf("fields %v, want no source, key or correlation id", describe(&got))
	}
	got.Clear(hep.FieldVLAN | hep.FieldNode | hep.FieldTime)
	if got.Has(hep.FieldVLAN) || got.Has(hep.FieldNode) || got.Has(hep.FieldSec) || !got.Has(hep.FieldKeepAlive) {
		t.Errorf("fields %v after Clear", describe(&got))
	}
	if _, ok := got.Time(); ok {
		t.Error("has a time after Clear")
	}
}

func TestAppend_writesOneFamilyToAPacket(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1%eth0")
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	tests := []struct {
		name     string
		src, dst netip.Addr
		family   uint8
		wantSrc  string
		wantDst  string
	}{
		{"both IPv4", four, mapped, hep.FamilyINET, "192.0.2.1", "192.0.2.1"},
		{"both IPv6", six, six, hep.FamilyINET6, "2001:db8::1", "2001:db8::1"},
		{"one of each", four, six, hep.FamilyINET6, "::ffff:192.0.2.1", "2001:db8::1"},
		{"source alone", six, netip.Addr{}, hep.FamilyINET6, "2001:db8::1", "invalid IP"},
		{"destination alone", netip.Addr{}, four, hep.FamilyINET, "invalid IP", "192.0.2.1"},
	}
	for _, tt := range tests {
		p := plain(t)
		p.Src, p.Dst, p.Family = tt.src, tt.dst, hep.FamilyINET6Darwin
		got, err := hep.Decode(encode(t, p))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got.Family != tt.family || got.Src.String() != tt.wantSrc || got.Dst.String() != tt.wantDst {
			t.Errorf("%s: family %d, %v to %v, want %d, %s to %s",
				tt.name, got.Family, got.Src, got.Dst, tt.family, tt.wantSrc, tt.wantDst)
		}
	}
	p := hep.Packet{Version: 3, Family: hep.FamilyINET6FreeBSD}
	if got, _ := hep.Decode(encode(t, p)); got.Family != hep.FamilyINET6 {
		t.Errorf("family %d without addresses, want 10", got.Family)
	}
}

func TestAppend_writesThePayloadOnce(t *testing.T) {
	p := plain(t)
	p.CompressedPayload = deflate(t, "zlib", p.Payload)
	if got, _ := hep.Decode(encode(t, p)); got.CompressedPayload != nil || string(got.Payload) != options {
		t.Errorf("payload %q, compressed %x, want it plain", got.Payload, got.CompressedPayload)
	}
	compressed := p.CompressedPayload
	p.Payload = nil
	got, err := hep.Decode(encode(t, p))
	if err != nil || !bytes.Equal(got.CompressedPayload, compressed) || string(got.Payload) != options {
		t.Errorf("payload %q, compressed %x, %v, want it compressed", got.Payload, got.CompressedPayload, err)
	}
}

func TestAppend_refusesWhatDoesNotFit(t *testing.T) {
	tests := []struct {
		name    string
		version uint8
		change  func(*hep.Packet)
		want    error
	}{
		{"no version", 0, nil, hep.ErrVersion},
		{"version 4", 4, nil, hep.ErrVersion},
		{"auth key too long", 3, func(p *hep.Packet) { p.AuthKey = make([]byte, 65536) }, hep.ErrTooLong},
		{"chunks too long together", 3, func(p *hep.Packet) { p.Extra, p.Private = make([]byte, 40000), make([]byte, 40000) }, hep.ErrTooLong},
		{"compressed payload too long", 3, func(p *hep.Packet) { p.Payload, p.CompressedPayload = nil, make([]byte, 65500) }, hep.ErrTooLong},
		{"payload too long", 1, func(p *hep.Packet) { p.Payload = make([]byte, 65520) }, hep.ErrTooLong},
		{"log line", 1, func(p *hep.Packet) { p.Type = hep.TypeLog }, hep.ErrField},
		{"no source", 1, func(p *hep.Packet) { p.Src = netip.Addr{} }, hep.ErrField},
		{"no destination", 2, func(p *hep.Packet) { p.Dst = netip.Addr{} }, hep.ErrField},
		{"compressed payload", 2, func(p *hep.Packet) { p.Payload, p.CompressedPayload = nil, []byte{1} }, hep.ErrField},
		{"capture id of 17 bits", 2, func(p *hep.Packet) { p.CaptureID = 65536 }, hep.ErrField},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := plain(t)
			p.Version = tt.version
			if tt.change != nil {
				tt.change(&p)
			}
			refuses(t, p, tt.want)
		})
	}
}

func TestAppend_leavesOutWhatOldVersionsDoNotHave(t *testing.T) {
	for version := uint8(1); version <= 2; version++ {
		p := usual(t)
		p.Version = version
		p.CorrelationID = []byte("cid")
		got, err := hep.Decode(encode(t, p))
		if err != nil {
			t.Fatal(err)
		}
		p.Clear(hep.FieldAuthKey | hep.FieldNode | hep.FieldVLAN | hep.FieldCorrelationID)
		if version == 1 {
			p.Clear(hep.FieldTime | hep.FieldCaptureID)
		}
		agree(t, &p)
		if got.Src != p.Src || got.DstPort != p.DstPort || !bytes.Equal(got.Payload, p.Payload) {
			t.Errorf("version %d: %v", version, describe(&got))
		}
	}
}

func TestAppend_writesBehindWhatIsThere(t *testing.T) {
	first, second := plain(t), usual(t)
	b, err := first.Append([]byte("head"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = second.Append(b); err != nil {
		t.Fatal(err)
	}
	one, rest, err := hep.Cut(b[4:])
	if err != nil || !bytes.Equal(one, encode(t, first)) {
		t.Errorf("Cut = %x, %v, want the first packet", one, err)
	}
	two, rest, err := hep.Cut(rest)
	if err != nil || !bytes.Equal(two, encode(t, second)) || len(rest) != 0 {
		t.Errorf("Cut = %x, %v, and %d left, want the second packet", two, err, len(rest))
	}
	for in, want := range map[string]error{"": hep.ErrNotHEP, "HEP": hep.ErrTruncated, "HEP3\x00\x05": hep.ErrLength,
		"HEP3\x00\x07": hep.ErrTruncated, "\x02\x10\x02\x11\x13\xc4": hep.ErrNotHEP} {
		if _, rest, err := hep.Cut([]byte(in)); !errors.Is(err, want) || string(rest) != in {
			t.Errorf("Cut(%q) error = %v and %q left, want %v and all", in, err, rest, want)
		}
	}
}

func TestPatchLength_refusesWhatALengthCannotTell(t *testing.T) {
	b := encode(t, plain(t))
	b = hep.AppendChunk(b, hep.VendorSiptrace, 0x101, bytes.Repeat([]byte{1}, 65535-len(b)-6))
	if err := hep.PatchLength(b); err != nil {
		t.Fatalf("65535 bytes: %v", err)
	}
	if _, err := hep.Decode(b); err != nil {
		t.Errorf("Decode of 65535 bytes: %v", err)
	}
	for name, long := range map[string][]byte{
		"one byte more": hep.AppendChunk(encode(t, plain(t)), 1, 1, make([]byte, 65536-len(encode(t, plain(t)))-6)),
		"a long chunk":  hep.AppendChunk(encode(t, plain(t)), 1, 1, make([]byte, 65536)),
	} {
		before := [2]byte(long[4:])
		if err := hep.PatchLength(long); !errors.Is(err, hep.ErrTooLong) || before != [2]byte(long[4:]) {
			t.Errorf("%s: PatchLength error = %v, want ErrTooLong and nothing changed", name, err)
		}
	}
	for _, in := range []string{"", "HEP3\x00", "HEP2\x00\x00", "\x01\x10\x02\x11\x00\x00\x00"} {
		if err := hep.PatchLength([]byte(in)); !errors.Is(err, hep.ErrNotHEP) {
			t.Errorf("PatchLength(%q) error = %v, want ErrNotHEP", in, err)
		}
	}
}
