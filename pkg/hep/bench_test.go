package hep_test

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// invite is a SIP request of 800 bytes.
func invite() []byte {
	head := "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n" +
		"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 8f3c@pbx\r\nCSeq: 1 INVITE\r\n" +
		"Subject: "
	return []byte(head + strings.Repeat("x", 800-len(head)-4) + "\r\n\r\n")
}

// usual is the packet of 933 bytes that an agent sends for invite.
func usual(t testing.TB) hep.Packet {
	p := hep.Packet{
		Version: 3, Family: hep.FamilyINET, Protocol: hep.ProtocolUDP, Type: hep.TypeSIP,
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.7"),
		SrcPort: 5060, DstPort: 5080, CaptureID: 2001,
		AuthKey: []byte("s3cret!"), Node: []byte("proxy-1"), Payload: invite(),
	}
	p.Set(hep.FieldVLAN)
	if err := p.SetTime(time.Unix(1700000000, 123456000)); err != nil {
		t.Fatal(err)
	}
	if got := p.Size(); got != 933 {
		t.Fatalf("Size() = %d, want 933", got)
	}
	return p
}

func encode(t testing.TB, p hep.Packet) []byte {
	t.Helper()
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func BenchmarkAppend(b *testing.B) {
	p := usual(b)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = p.Append(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	in := encode(b, usual(b))
	var d hep.Decoder
	var p hep.Packet
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&p, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode_lenient(b *testing.B) {
	in := encode(b, usual(b))
	d := hep.Decoder{Lenient: true}
	var p hep.Packet
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&p, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode_private(b *testing.B) {
	in := encode(b, usual(b))
	in = hep.AppendChunk(in, hep.VendorSiptrace, 0x0101, make([]byte, 16))
	in = hep.AppendChunk(in, hep.VendorSiptrace, 0x0102, []byte("sip_trace"))
	if err := hep.PatchLength(in); err != nil {
		b.Fatal(err)
	}
	d := hep.Decoder{Private: hep.VendorSiptrace}
	var p hep.Packet
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&p, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode_version2(b *testing.B) {
	p := usual(b)
	p.Version = 2
	in := encode(b, p)
	var d hep.Decoder
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&p, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode_inflate(b *testing.B) {
	p := usual(b)
	p.CompressedPayload, p.Payload = deflate(b, "zlib", p.Payload), nil
	in := encode(b, p)
	var d hep.Decoder
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&p, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	stream := bytes.Repeat(encode(b, usual(b)), 64)
	src := &endless{b: stream}
	r := hep.NewReader(src)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// endless reads b over and over.
type endless struct {
	b   []byte
	off int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.off:])
	e.off = (e.off + n) % len(e.b)
	return n, nil
}

var _ io.Reader = (*endless)(nil)
