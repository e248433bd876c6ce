package ctl

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// HEPCmd is ctl hep.
type HEPCmd struct {
	Decode HEPDecodeCmd `cmd:"" help:"Print what is in HEP packets, one JSON object per packet."`
}

// HEPDecodeCmd is ctl hep decode.
type HEPDecodeCmd struct {
	Files  []string `arg:"" name:"file" help:"Files of packets, \"-\" for standard input. A file holds one packet of version 1 or 2, or version 3 packets one behind the other."`
	Hex    bool     `help:"The files are hexadecimal text, one packet a line; white space inside a line is ignored."`
	Strict bool     `help:"Refuse what real agents get wrong but receivers can read."`
}

// Help is the end of ctl hep decode --help.
func (*HEPDecodeCmd) Help() string {
	return `Examples:
  ctl hep decode packet.bin
  echo 48455033000d0000000100070 2 | ctl hep decode --hex -

Absent fields are absent. A malformed packet gets {"error": "…"}, and the exit status is 1 at the end.`
}

// A decoded is a packet as JSON shows it; what the packet does not carry is
// left out.
type decoded struct {
	Version       uint8    `json:"version"`
	Family        *uint8   `json:"family,omitempty"`
	Proto         *uint8   `json:"proto,omitempty"`
	Src           string   `json:"src,omitempty"`
	Dst           string   `json:"dst,omitempty"`
	Time          string   `json:"time,omitempty"`
	Type          *uint8   `json:"type,omitempty"`
	CaptureID     *uint32  `json:"capture_id,omitempty"`
	AuthKey       *string  `json:"auth_key,omitempty"`
	CorrelationID *string  `json:"correlation_id,omitempty"`
	Node          *string  `json:"node,omitempty"`
	Payload       []byte   `json:"payload,omitzero"`
	Chunks        []jchunk `json:"chunks,omitempty"`
	Quirks        string   `json:"quirks,omitempty"`
}

// A jchunk is a chunk without a field of its own.
type jchunk struct {
	Vendor uint16 `json:"vendor"`
	Type   uint16 `json:"type"`
	Body   []byte `json:"body"`
}

// Run decodes every file.
func (c *HEPDecodeCmd) Run(env *Env) error {
	out := bufio.NewWriter(env.Stdout)
	defer out.Flush()
	bad := 0
	for _, name := range c.Files {
		b, err := readInput(env.Stdin, name)
		if err != nil {
			return err
		}
		n, err := c.decode(out, b)
		if err != nil {
			return err
		}
		bad += n
	}
	if bad > 0 {
		out.Flush()
		return leave(app.ExitFailed)
	}
	return nil
}

func readInput(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// decode prints the packets of one file and returns how many are malformed.
func (c *HEPDecodeCmd) decode(w io.Writer, b []byte) (bad int, err error) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	d := hep.Decoder{Lenient: !c.Strict}
	show := func(pkt []byte) error {
		v, fault := describe(&d, pkt)
		if fault != nil {
			bad++
			return enc.Encode(map[string]string{"error": fault.Error()})
		}
		return enc.Encode(v)
	}
	if !c.Hex {
		for _, pkt := range split(b) {
			if err := show(pkt); err != nil {
				return bad, err
			}
		}
		return bad, nil
	}
	for line := range bytes.Lines(b) {
		text := strings.Join(strings.Fields(string(line)), "")
		if text == "" {
			continue
		}
		raw, fault := hex.DecodeString(text)
		if fault != nil {
			bad++
			if err := enc.Encode(map[string]string{"error": fault.Error()}); err != nil {
				return bad, err
			}
			continue
		}
		if err := show(raw); err != nil {
			return bad, err
		}
	}
	return bad, nil
}

// split cuts a file of version 3 packets into packets. What is not one, to the
// end of the file, is one piece.
func split(b []byte) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		n := len(b)
		if len(b) > 6 && (bytes.HasPrefix(b, []byte("HEP3")) || bytes.HasPrefix(b, []byte("EEP3"))) {
			if total := int(binary.BigEndian.Uint16(b[4:])); total >= 6 && total < len(b) && isHEP3(b[total:]) {
				n = total
			}
		}
		out = append(out, b[:n])
		b = b[n:]
	}
	if out == nil {
		out = append(out, nil) // an empty file is an empty packet
	}
	return out
}

func isHEP3(b []byte) bool {
	return bytes.HasPrefix(b, []byte("HEP3")) || bytes.HasPrefix(b, []byte("EEP3"))
}

// describe decodes one packet.
func describe(d *hep.Decoder, pkt []byte) (*decoded, error) {
	var p hep.Packet
	if err := d.Decode(&p, pkt); err != nil && !errors.Is(err, hep.ErrInflate) {
		return nil, err
	}
	if p.Quirks&hep.QuirkTruncated != 0 && len(p.Payload) == 0 {
		return nil, hep.ErrTruncated // as a tap sees it: nothing of the message is there
	}
	v := &decoded{
		Version:       p.Version,
		Family:        present(&p, hep.FieldFamily, p.Family),
		Proto:         present(&p, hep.FieldProtocol, p.Protocol),
		Type:          present(&p, hep.FieldType, p.Type),
		CaptureID:     present(&p, hep.FieldCaptureID, p.CaptureID),
		AuthKey:       text(p.AuthKey),
		CorrelationID: text(p.CorrelationID),
		Node:          text(p.Node),
		Payload:       p.Payload,
		Quirks:        p.Quirks.String(),
	}
	if p.Src.IsValid() {
		v.Src = net.JoinHostPort(p.Src.String(), fmt.Sprint(p.SrcPort))
	}
	if p.Dst.IsValid() {
		v.Dst = net.JoinHostPort(p.Dst.String(), fmt.Sprint(p.DstPort))
	}
	if t, ok := p.Time(); ok {
		v.Time = t.UTC().Format(time.RFC3339Nano)
	}
	v.Chunks = others(pkt, &p)
	return v, nil
}

func present[T any](p *hep.Packet, f hep.Field, v T) *T {
	if !p.Has(f) {
		return nil
	}
	return &v
}

// text is a chunk that people read; bytes that are no UTF-8 become base64.
func text(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	if !utf8.Valid(b) {
		s = "base64:" + base64.StdEncoding.EncodeToString(b)
	}
	return &s
}

// named are the generic chunks that have a key of their own.
var named = map[uint16]bool{
	hep.ChunkFamily: true, hep.ChunkProtocol: true, hep.ChunkSrc4: true, hep.ChunkDst4: true,
	hep.ChunkSrc6: true, hep.ChunkDst6: true, hep.ChunkSrcPort: true, hep.ChunkDstPort: true,
	hep.ChunkSec: true, hep.ChunkUsec: true, hep.ChunkType: true, hep.ChunkCaptureID: true,
	hep.ChunkAuthKey: true, hep.ChunkPayload: true, hep.ChunkCorrelationID: true, hep.ChunkNode: true,
}

// others are the chunks without a key of their own.
func others(pkt []byte, p *hep.Packet) []jchunk {
	if p.Version != 3 {
		return nil
	}
	var out []jchunk
	for c, err := range hep.Chunks(pkt) {
		if err != nil {
			break // the decoder has overlooked it
		}
		if c.Vendor != 0 || !named[c.Type] {
			out = append(out, jchunk{c.Vendor, c.Type, c.Body})
		}
	}
	return out
}
