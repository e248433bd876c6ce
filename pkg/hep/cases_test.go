package hep_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// row is a row of testdata/cases.tsv.gz: bytes, and in prose what must happen.
type row struct {
	id, kind, class string
	b               []byte
	must            string
}

// cases reads the rows of one kind: dec, stream or enc.
func cases(t testing.TB, kind string) []row {
	t.Helper()
	f, err := os.Open("testdata/cases.tsv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	s := bufio.NewScanner(z)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		c := strings.Split(s.Text(), "\t")
		b, err := hex.DecodeString(c[3])
		if err != nil || len(c) != 5 {
			t.Fatalf("row %s: %d columns, %v", c[0], len(c), err)
		}
		if c[1] == kind {
			rows = append(rows, row{c[0], c[1], c[2], b, c[4]})
		}
	}
	if s.Err() != nil || len(rows) == 0 {
		t.Fatalf("%d rows of %s, %v", len(rows), kind, s.Err())
	}
	return rows
}

// result is what a decoder makes of a row. Want holds every field that is
// present, by name.
type result struct {
	Want map[string]any `json:"want"`
	Err  string         `json:"err"`
}

// expectation is a line of testdata/cases.jsonl, the prose of a row made exact.
type expectation struct {
	ID                    string
	Both, Strict, Lenient *result
	Packed                *result
}

func expectations(t *testing.T) map[string]expectation {
	t.Helper()
	f, err := os.Open("testdata/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string]expectation)
	for d := json.NewDecoder(f); d.More(); {
		var e expectation
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Both != nil {
			e.Strict, e.Lenient = e.Both, e.Both
		}
		all[e.ID] = e
	}
	return all
}

var sentinels = map[string]error{
	"ErrNotHEP": hep.ErrNotHEP, "ErrTruncated": hep.ErrTruncated, "ErrLength": hep.ErrLength,
	"ErrTrailing": hep.ErrTrailing, "ErrFamily": hep.ErrFamily, "ErrChunk": hep.ErrChunk,
	"ErrTooLarge": hep.ErrTooLarge,
}

func TestCases_decode(t *testing.T) {
	want := expectations(t)
	rows := cases(t, "dec")
	if len(want) != len(rows) {
		t.Errorf("%d expectations for %d rows", len(want), len(rows))
	}
	for _, r := range rows {
		e := want[r.id]
		for _, mode := range []struct {
			name    string
			decoder hep.Decoder
			want    *result
		}{
			{"strict", hep.Decoder{}, e.Strict},
			{"lenient", hep.Decoder{Lenient: true}, e.Lenient},
			{"packed", hep.Decoder{PackedTime: true}, e.Packed},
		} {
			if mode.want == nil {
				if mode.name != "packed" {
					t.Errorf("%s: no expectation", r.id)
				}
				continue
			}
			t.Run(r.id+"/"+mode.name, func(t *testing.T) {
				in2027(t, func() { checkDecode(t, r, &mode.decoder, mode.want) })
			})
		}
	}
}

// in2027 runs f with a clock that is ahead of all recorded packets.
func in2027(t *testing.T, f func()) {
	synctest.Test(t, func(*testing.T) {
		time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)))
		f()
	})
}

func checkDecode(t *testing.T, r row, d *hep.Decoder, want *result) {
	// A packet of another time must leave no trace.
	p := hep.Packet{VLAN: 9, Family: 9, Node: []byte("left"), Extra: []byte("over"), Quirks: 9, Trailing: 9}
	p.Set(hep.FieldNumbers)
	err := d.Decode(&p, r.b)
	if !errors.Is(err, sentinels[want.Err]) {
		t.Fatalf("%s: Decode error = %v, want %s", r.must, err, want.Err)
	}
	if want.Want == nil {
		return
	}
	if got := describe(&p); !reflect.DeepEqual(got, want.Want) {
		t.Errorf("%s\n got %v\nwant %v", r.must, got, want.Want)
	}
}

// describe is every field of p that is present, as JSON would have it.
func describe(p *hep.Packet) map[string]any {
	m := map[string]any{"version": float64(p.Version)}
	number := func(name string, f hep.Field, v float64) {
		if p.Has(f) {
			m[name] = v
		}
	}
	text := func(name string, b []byte) {
		if b != nil {
			m[name] = brief(b)
		}
	}
	number("family", hep.FieldFamily, float64(p.Family))
	number("protocol", hep.FieldProtocol, float64(p.Protocol))
	number("type", hep.FieldType, float64(p.Type))
	number("src_port", hep.FieldSrcPort, float64(p.SrcPort))
	number("dst_port", hep.FieldDstPort, float64(p.DstPort))
	number("sec", hep.FieldSec, float64(p.Sec))
	number("usec", hep.FieldUsec, float64(p.Usec))
	number("capture_id", hep.FieldCaptureID, float64(p.CaptureID))
	number("keep_alive", hep.FieldKeepAlive, float64(p.KeepAlive))
	number("vlan", hep.FieldVLAN, float64(p.VLAN))
	text("auth_key", p.AuthKey)
	text("correlation_id", p.CorrelationID)
	text("node", p.Node)
	text("payload", p.Payload)
	text("compressed_payload", p.CompressedPayload)
	text("extra", p.Extra)
	text("private", p.Private)
	if p.Has(hep.FieldSrc) {
		m["src"] = p.Src.String()
	}
	if p.Has(hep.FieldDst) {
		m["dst"] = p.Dst.String()
	}
	if p.Trailing != 0 {
		m["trailing"] = float64(p.Trailing)
	}
	if p.Quirks != 0 {
		var quirks []any
		for q := range strings.SplitSeq(p.Quirks.String(), ",") {
			quirks = append(quirks, q)
		}
		m["quirks"] = quirks
	}
	return m
}

// brief is b as itself where that is short and plain, else in hex or by digest.
func brief(b []byte) string {
	plain := !bytes.HasPrefix(b, []byte("0x"))
	for _, c := range b {
		plain = plain && c >= ' ' && c < 0x7f && c != '"' && c != '\\'
	}
	switch {
	case len(b) > 64:
		sum := sha256.Sum256(b)
		return fmt.Sprintf("sha256:%x:%d", sum[:8], len(b))
	case plain:
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}

// What the prose of a row says beyond the fields of a packet.
var claims = map[string]func(t *testing.T, b []byte){
	"V01": func(t *testing.T, b []byte) {
		p, _ := hep.Decode(b)
		want := time.Date(2011, 8, 15, 20, 34, 19, 120000000, time.UTC)
		if got, ok := p.Time(); !ok || !got.Equal(want) {
			t.Errorf("Time() = %v, %v, want %v", got.UTC(), ok, want)
		}
	},
	"V07": wantChunk(0, hep.ChunkCorrelationIDs, []byte("{\n\t\"sip\":\t\"abc@x\",\n\t\"net\":\t\"42\"\n}")),
	"V11": func(t *testing.T, b []byte) {
		p, _ := hep.Decode(b)
		for i := range 32 {
			if f := hep.Field(1) << i; p.Has(f) {
				t.Errorf("Has(1<<%d) of an empty packet", i)
			}
		}
	},
	"V13": func(t *testing.T, b []byte) {
		for id, want := range map[uint16]uint64{
			hep.ChunkVLAN: 100, hep.ChunkSrcMAC: 0x001122334455, hep.ChunkDstMAC: 0x665544332211,
			hep.ChunkEthertype: 0x0800, hep.ChunkTCPFlags: 0x18, hep.ChunkTOS: 0xb8, hep.ChunkMOS: 441,
			hep.ChunkRFactor: 93, hep.ChunkJitter: 12, hep.ChunkTagType: 1, hep.ChunkEventType: 1,
		} {
			wantUint(id, want)(t, b)
		}
		for id, want := range map[uint16]string{
			hep.ChunkGeoLocation: "52.5,13.4", hep.ChunkTransactionType: "call", hep.ChunkJSONKeys: "{}",
			hep.ChunkTagValues: "a;b", hep.ChunkGroupID: "grp",
		} {
			wantChunk(0, id, []byte(want))(t, b)
		}
	},
	"V14": wantChunk(hep.VendorGenesys, 1, []byte("conv-id")),
	"V16": wantChunk(0, 0x1234, []byte("x")),
	"V28": func(t *testing.T, b []byte) {
		p, _ := hep.Decode(b)
		if got, _ := p.Time(); got.UTC().Year() != 2106 {
			t.Errorf("Time() = %v, want a day in 2106", got.UTC())
		}
	},
	"B05": wantUint(hep.ChunkTCPFlags, 0x18),
	"B16": func(t *testing.T, b []byte) {
		p, _ := hep.Decode(b)
		const want int64 = 1700000000_000000 + 1<<32 - 1
		if got, _ := p.Time(); got.UnixMicro() != want {
			t.Errorf("Time() = %d µs, want %d", got.UnixMicro(), want)
		}
	},
	"B21": wantUint(hep.ChunkSrcMAC, 0x001122334455),
	"M08": func(t *testing.T, b []byte) {
		var d hep.Decoder
		var p hep.Packet
		if n := testing.AllocsPerRun(10, func() { _ = d.Decode(&p, b) }); n != 0 {
			t.Errorf("Decode allocates %v times", n)
		}
		if n := len(chunksOf(t, b)); n != 10921 {
			t.Errorf("%d chunks, want 10921", n)
		}
	},
	"M11": func(t *testing.T, b []byte) {
		p, _ := hep.Decode(b)
		if at := bytes.Index(b, p.AuthKey); &b[at] != &p.AuthKey[0] {
			t.Error("auth key is a copy, want it to alias the packet")
		}
	},
}

func TestCases_decodeClaims(t *testing.T) {
	for _, r := range cases(t, "dec") {
		if claim := claims[r.id]; claim != nil {
			t.Run(r.id, func(t *testing.T) { claim(t, r.b) })
		}
	}
}

// chunksOf is all chunks of the packet b.
func chunksOf(t *testing.T, b []byte) []hep.Chunk {
	t.Helper()
	var all []hep.Chunk
	for c, err := range hep.Chunks(b) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func wantChunk(vendor, typ uint16, want []byte) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		for _, c := range chunksOf(t, b) {
			if c.Vendor == vendor && c.Type == typ {
				if !bytes.Equal(c.Body, want) {
					t.Errorf("chunk 0x%04x = %q, want %q", typ, c.Body, want)
				}
				return
			}
		}
		t.Errorf("no chunk 0x%04x of vendor 0x%04x", typ, vendor)
	}
}

func wantUint(typ uint16, want uint64) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		for _, c := range chunksOf(t, b) {
			if c.Vendor == 0 && c.Type == typ {
				if got, ok := c.Uint(); !ok || got != want {
					t.Errorf("chunk 0x%04x = %d, %v, want %d", typ, got, ok, want)
				}
				return
			}
		}
		t.Errorf("no chunk 0x%04x", typ)
	}
}
