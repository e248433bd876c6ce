package hep_test

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// options is the SIP request that most rows carry.
const options = "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n" +
	"From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c1@x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"

// plain is the packet that most rows are variations of.
func plain(t testing.TB) hep.Packet {
	p := hep.Packet{
		Version: 3, Protocol: hep.ProtocolUDP, Type: hep.TypeSIP, CaptureID: 2001,
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.7"),
		SrcPort: 5060, DstPort: 5080, Payload: []byte(options),
	}
	if err := p.SetTime(time.Unix(1700000000, 123456789)); err != nil {
		t.Fatal(err)
	}
	return p
}

// encodes is a row whose bytes are what plain becomes after change.
func encodes(change func(*hep.Packet)) func(*testing.T, []byte) {
	return func(t *testing.T, want []byte) {
		p := plain(t)
		change(&p)
		if got := encode(t, p); !bytes.Equal(got, want) {
			t.Errorf("Append:\n got %x\nwant %x", got, want)
		}
		if got := p.Size(); got != len(want) {
			t.Errorf("Size() = %d, want %d", got, len(want))
		}
	}
}

func ip6(p *hep.Packet) {
	p.Src, p.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
}

var encodeCases = map[string]func(*testing.T, []byte){
	"E01": encodes(func(*hep.Packet) {}),
	"E02": func(t *testing.T, _ []byte) { reencodeAll(t) },
	"E04": func(t *testing.T, want []byte) {
		xs := bytes.Repeat([]byte("x"), hep.MaxSize-hep.OverheadIPv4)
		encodes(func(p *hep.Packet) { p.Payload = xs })(t, want)
		p := plain(t)
		p.Payload = append(xs, 'x')
		refuses(t, p, hep.ErrTooLong)
	},
	"E05": encodes(func(p *hep.Packet) {
		p.Src, p.Dst = netip.AddrFrom16(p.Src.As16()), netip.AddrFrom16(p.Dst.As16())
	}),
	"E07": encodes(func(p *hep.Packet) {
		p.Src, p.Dst, p.Family = netip.Addr{}, netip.Addr{}, hep.FamilyINET
	}),
	"E08": func(t *testing.T, _ []byte) {
		for _, tt := range []struct {
			name string
			at   time.Time
			want error
		}{
			{"last before 1970", time.Unix(0, -1), hep.ErrTime},
			{"first of 1970", time.Unix(0, 0), nil},
			{"last of 32 bits", time.Unix(math.MaxUint32, 999999999), nil},
			{"first after", time.Unix(math.MaxUint32+1, 0), hep.ErrTime},
			{"zero Time", time.Time{}, hep.ErrTime},
		} {
			p := plain(t)
			before := [2]uint32{p.Sec, p.Usec}
			err := p.SetTime(tt.at)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: SetTime error = %v, want %v", tt.name, err, tt.want)
			}
			got, ok := p.Time()
			switch {
			case err == nil && (!ok || !got.Equal(tt.at.Truncate(time.Microsecond))):
				t.Errorf("%s: Time() = %v, want %v", tt.name, got, tt.at)
			case err != nil && before != [2]uint32{p.Sec, p.Usec}:
				t.Errorf("%s: time changed by a refused SetTime", tt.name)
			}
		}
	},
	"E10": encodes(func(p *hep.Packet) { p.Version = 2 }),
	"E11": encodes(func(p *hep.Packet) { p.Version = 2; ip6(p) }),
	"E13": func(t *testing.T, _ []byte) {
		p := plain(t)
		p.Version, p.CaptureID = 2, 65535
		if b := encode(t, p); b[24] != 0xff || b[25] != 0xff {
			t.Errorf("capture id 65535 became %x", b[24:26])
		}
		p.CaptureID++
		refuses(t, p, hep.ErrField)
	},
	"E14": func(t *testing.T, _ []byte) {
		p := plain(t)
		room := make([]byte, 0, p.Size())
		for version := range uint8(3) {
			p.Version = version + 1
			if n := testing.AllocsPerRun(100, func() { _, _ = p.Append(room) }); n != 0 {
				t.Errorf("version %d into a slice with room allocates %v times", p.Version, n)
			}
			var grown []byte
			once := testing.AllocsPerRun(100, func() { grown = slices.Grow([]byte(nil), p.Size()) })
			if n := testing.AllocsPerRun(100, func() { grown, _ = p.Append(nil) }); n != once || len(grown) == 0 {
				t.Errorf("version %d into nil allocates %v times, want the %v of one growth", p.Version, n, once)
			}
		}
	},
	"E16": func(t *testing.T, want []byte) {
		p, err := hep.Decode(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := encode(t, p); !bytes.Equal(got, want) {
			t.Errorf("Append:\n got %x\nwant %x", got, want)
		}
	},
	"E17": func(t *testing.T, _ []byte) {
		p := plain(t)
		if got, want := p.Size(), hep.OverheadIPv4+len(p.Payload); got != want {
			t.Errorf("Size() with IPv4 = %d, want %d", got, want)
		}
		ip6(&p)
		if got, want := p.Size(), hep.OverheadIPv6+len(p.Payload); got != want {
			t.Errorf("Size() with IPv6 = %d, want %d", got, want)
		}
	},
}

func TestCases_encode(t *testing.T) {
	rows := cases(t, "enc")
	if len(rows) != len(encodeCases) {
		t.Errorf("%d tests for %d rows", len(encodeCases), len(rows))
	}
	for _, r := range rows {
		t.Run(r.id, func(t *testing.T) {
			if encodeCases[r.id] == nil {
				t.Fatalf("no test for: %s", r.must)
			}
			encodeCases[r.id](t, r.b)
		})
	}
}

// refuses checks that p cannot be encoded, and that a refusal changes nothing.
func refuses(t *testing.T, p hep.Packet, want error) {
	t.Helper()
	dst := []byte("kept")
	got, err := p.Append(dst)
	if !errors.Is(err, want) {
		t.Errorf("Append error = %v, want %v", err, want)
	}
	if string(got) != "kept" {
		t.Errorf("Append returned %q on an error, want dst as it was", got)
	}
}

// canonical is the rows in whose packets the chunks stand in Append's order.
var canonical = map[string]bool{
	"V01": true, "V02": true, "V04": true, "V14": true, "V16": true, "V17": true, "V19": true,
	"V23": true, "V25": true, "V26": true, "V28": true, "B05": true, "B08": true, "B16": true,
	"B21": true, "B24": true, "M11": true, "M15": true,
	"H01": true, "H02": true, "H04": true, "H05": true, "H07": true, "H08": true, "H16": true,
}

// reencodeAll decodes every row that can be, encodes it and decodes that.
func reencodeAll(t *testing.T) {
	d := hep.Decoder{Lenient: true}
	for _, r := range cases(t, "dec") {
		var p hep.Packet
		if err := d.Decode(&p, r.b); err != nil {
			continue
		}
		if d := (hep.Decoder{}); canonical[r.id] {
			if err := d.Decode(&p, r.b); err != nil {
				t.Errorf("%s: %v", r.id, err)
			}
			if got := encode(t, p); !bytes.Equal(got, r.b) {
				t.Errorf("%s: encoded again:\n got %x\nwant %x", r.id, got, r.b)
			}
		}
		agree(t, &p)
	}
}

// agree checks that p, encoded and decoded, is the same packet.
func agree(t *testing.T, p *hep.Packet) {
	t.Helper()
	b, err := p.Append(nil)
	if errors.Is(err, hep.ErrTooLong) && p.Size() > hep.MaxSize {
		return // what is always there, or was inflated, did not fit any more
	}
	if err != nil {
		t.Fatalf("Append(%v): %v", describe(p), err)
	}
	if len(b) != p.Size() {
		t.Fatalf("Size() = %d, Append wrote %d", p.Size(), len(b))
	}
	var got hep.Packet
	d := hep.Decoder{MaxInflate: -1, Private: hep.VendorSiptrace}
	if err := d.Decode(&got, b); err != nil {
		t.Fatalf("Decode of %x: %v", b, err)
	}
	want, have := essence(*p), essence(got)
	for name, v := range want {
		if have[name] != v {
			t.Errorf("%s = %v after encoding, want %v", name, have[name], v)
		}
	}
	if len(have) != len(want) {
		t.Errorf("fields after encoding:\n got %v\nwant %v", have, want)
	}
}

// essence is p without what Append promises to change: the protocol and the
// type are always there, the family is that of the addresses, one of the two
// payloads goes, and the quirks are gone.
func essence(p hep.Packet) map[string]any {
	p.Set(hep.FieldProtocol | hep.FieldType)
	p.Quirks, p.Trailing = 0, 0
	p.Src, p.Dst = p.Src.Unmap(), p.Dst.Unmap()
	if p.Has(hep.FieldSrc) || p.Has(hep.FieldDst) {
		p.Clear(hep.FieldFamily)
	}
	switch p.Family {
	case 23, 24, 26, 28, 30:
		p.Family = hep.FamilyINET6
	}
	if p.Payload != nil {
		p.CompressedPayload = nil
	}
	return describe(&p)
}
