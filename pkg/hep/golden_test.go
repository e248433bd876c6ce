package hep_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// recorded is a datagram that Kamailio sent, and what is in it.
type recorded struct {
	b []byte

	Len        int     `json:"len"`
	Version    uint8   `json:"v"`
	Family     uint8   `json:"family"`
	Protocol   uint8   `json:"proto"`
	Src        string  `json:"src"`
	Dst        string  `json:"dst"`
	SrcPort    uint16  `json:"sport"`
	DstPort    uint16  `json:"dport"`
	Sec        *uint32 `json:"sec"`
	Usec       *uint32 `json:"usec"`
	Type       *uint8  `json:"type"`
	CaptureID  *uint32 `json:"capid"`
	Auth       *string `json:"auth"`
	Corr       *string `json:"corr"`
	PayloadLen int     `json:"payload_len"`
	FirstLine  string  `json:"first_line"`
	CallID     string  `json:"callid"`
}

// records reads the datagrams of one run; each has its length in four bytes in
// front.
func records(t *testing.T, run string) []recorded {
	t.Helper()
	b, err := os.ReadFile("testdata/golden/" + run + ".lp")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile("testdata/golden/" + run + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	for line := range bytes.Lines(lines) {
		var r recorded
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		n := binary.BigEndian.Uint32(b)
		r.b, b = b[4:4+n], b[4+n:]
		all = append(all, r)
	}
	if len(b) > 0 || len(all) == 0 {
		t.Fatalf("%d records and %d bytes left", len(all), len(b))
	}
	return all
}

func TestDecode_readsWhatKamailioSends(t *testing.T) {
	for _, run := range []string{"hep1", "hep2", "hep3", "hlog", "corr"} {
		for _, r := range records(t, run) {
			t.Run(run+"/"+strings.ReplaceAll(r.FirstLine, "/", "."), func(t *testing.T) {
				in2027(t, func() {
					p, err := hep.Decode(r.b)
					if err != nil {
						t.Fatal(err)
					}
					r.check(t, &p)
					r.checkAgain(t, &p)
				})
			})
		}
	}
}

func (r recorded) check(t *testing.T, p *hep.Packet) {
	equal(t, "length", len(r.b), r.Len)
	equal(t, "version", p.Version, r.Version)
	equal(t, "family", p.Family, r.Family)
	equal(t, "protocol", p.Protocol, r.Protocol)
	equal(t, "src", p.Src.String(), r.Src)
	equal(t, "dst", p.Dst.String(), r.Dst)
	equal(t, "src port", p.SrcPort, r.SrcPort)
	equal(t, "dst port", p.DstPort, r.DstPort)
	optional(t, "sec", p.Has(hep.FieldSec), p.Sec, r.Sec)
	optional(t, "usec", p.Has(hep.FieldUsec), p.Usec, r.Usec)
	optional(t, "capture id", p.Has(hep.FieldCaptureID), p.CaptureID, r.CaptureID)
	optional(t, "auth key", p.Has(hep.FieldAuthKey), string(p.AuthKey), r.Auth)
	optional(t, "correlation id", p.Has(hep.FieldCorrelationID), string(p.CorrelationID), r.Corr)
	if r.Version == 3 {
		optional(t, "type", p.Has(hep.FieldType), p.Type, r.Type)
	} else {
		equal(t, "type", p.Type, hep.TypeSIP)
	}
	equal(t, "payload length", len(p.Payload), r.PayloadLen)
	line, _, _ := strings.Cut(string(p.Payload), "\r\n")
	equal(t, "first line", line, r.FirstLine)
	equal(t, "Call-ID found", bytes.Contains(p.Payload, []byte(r.CallID)), true)
	equal(t, "quirks", p.Quirks, hep.Quirk(0))
}

// checkAgain encodes the packet again. Kamailio writes the correlation id
// before the auth key and, of log lines, the ports the other way round; but
// for that order every byte is as it was.
func (r recorded) checkAgain(t *testing.T, p *hep.Packet) {
	got := encode(t, *p)
	if bytes.Equal(got, r.b) {
		return
	}
	if r.Version != 3 || r.Corr == nil {
		t.Errorf("encoded again:\n got %x\nwant %x", got, r.b)
		return
	}
	equal(t, "length again", len(got), len(r.b))
	if !slices.Equal(sortedChunks(t, got), sortedChunks(t, r.b)) {
		t.Errorf("other chunks after encoding:\n got %x\nwant %x", got, r.b)
	}
}

// sortedChunks is the chunks of a packet, each as bytes, in some fixed order.
func sortedChunks(t *testing.T, b []byte) []string {
	var all []string
	for _, c := range chunksOf(t, b) {
		all = append(all, string(hep.AppendChunk(nil, c.Vendor, c.Type, c.Body)))
	}
	slices.Sort(all)
	return all
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func optional[T comparable](t *testing.T, what string, has bool, got T, want *T) {
	t.Helper()
	switch {
	case has != (want != nil):
		t.Errorf("%s present: %v, want %v", what, has, want != nil)
	case has && got != *want:
		t.Errorf("%s = %v, want %v", what, got, *want)
	}
}
