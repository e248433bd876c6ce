package hep_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// seed adds the rows of one kind that are not overlong.
func seed(f *testing.F, kind string) {
	f.Helper()
	for _, r := range cases(f, kind) {
		if len(r.b) < 1500 {
			f.Add(r.b)
		}
	}
}

// FuzzDecode: whatever can be decoded encodes to what decodes to the same; and
// Chunks, Decode and a lenient Decode agree on what a packet is.
func FuzzDecode(f *testing.F) {
	seed(f, "dec")
	seed(f, "enc")
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.Clone(b)
		strict := hep.Decoder{Private: hep.VendorSiptrace}
		lenient := hep.Decoder{Private: hep.VendorSiptrace, Lenient: true, MaxInflate: 1 << 16}
		var p, q hep.Packet
		err := strict.Decode(&p, b)
		if err == nil || errors.Is(err, hep.ErrInflate) {
			checkPacket(t, &p, b)
			if err := lenient.Decode(&q, b); err != nil && !errors.Is(err, hep.ErrInflate) {
				t.Fatalf("strict takes it, lenient says %v", err)
			}
		}
		if err := lenient.Decode(&q, b); err == nil || errors.Is(err, hep.ErrInflate) {
			agreeIn(t, &q)
		}
		if !bytes.Equal(b, whole) {
			t.Fatal("decoding changed the packet")
		}
	})
}

// checkPacket checks p, which b was decoded to strictly.
func checkPacket(t *testing.T, p *hep.Packet, b []byte) {
	t.Helper()
	if p.Version == 3 {
		fields := 0
		for c, err := range hep.Chunks(b) {
			if err != nil {
				t.Fatalf("Decode takes it, Chunks says %v", err)
			}
			if string(b[c.Offset+6:c.Offset+6+len(c.Body)]) != string(c.Body) {
				t.Fatalf("chunk at %d is not there", c.Offset)
			}
			if c.Vendor == 0 && c.Type >= 1 && c.Type <= hep.ChunkNode {
				fields++
			}
		}
		own := len(b) - 6 - len(p.Extra) - len(p.Private)
		if (fields == 0) != (own == 0) {
			t.Fatalf("%d fields in %d bytes", fields, own)
		}
	}
	agreeIn(t, p)
}

// agreeIn is agree for every version that can carry p. Version 2 cannot say
// its byte order, so that a time that was put right and still is before 2001
// may read the other way round the next time.
func agreeIn(t *testing.T, p *hep.Packet) {
	t.Helper()
	if p.Version != 2 || p.Quirks&hep.QuirkUsec == 0 {
		agree(t, p)
	}
	up := *p
	up.Version = 3
	agree(t, &up)
}

// FuzzReader: a Reader gives the packets that stand in a stream however the
// reads fall, loses no byte from its count, and stays in its bounds.
func FuzzReader(f *testing.F) {
	for _, r := range cases(f, "stream") {
		if len(r.b) < 1500 {
			f.Add(r.b, true)
			f.Add(r.b, false)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, resync bool) {
		var options []hep.ReaderOption
		if resync {
			options = []hep.ReaderOption{hep.Resync(1 << 12), hep.SkipFiller()}
		}
		want, wantErr := packets(t, bytes.NewReader(b), len(b), options)
		got, gotErr := packets(t, iotest.OneByteReader(bytes.NewReader(b)), len(b), options)
		if !bytes.Equal(want, got) || !sameKind(wantErr, gotErr) {
			t.Fatalf("by the byte %d bytes then %v, at once %d bytes then %v", len(got), gotErr, len(want), wantErr)
		}
		if !resync {
			rest, n := b, 0
			for {
				one, after, err := hep.Cut(rest)
				if err != nil {
					break
				}
				n, rest = n+len(one), after
			}
			if n != len(want) {
				t.Fatalf("Reader gave %d bytes, Cut %d", len(want), n)
			}
		}
	})
}

// packets is all packets of a stream of n bytes, joined, and its end.
func packets(t *testing.T, src io.Reader, n int, options []hep.ReaderOption) ([]byte, error) {
	t.Helper()
	r := hep.NewReader(src, options...)
	var all []byte
	for {
		packet, err := r.Next()
		if err != nil {
			if r.Offset() > int64(n) || r.Offset() != r.Skipped()+int64(len(all)) {
				t.Fatalf("at %d of %d, with %d skipped and %d given", r.Offset(), n, r.Skipped(), len(all))
			}
			return all, err
		}
		if one, rest, err := hep.Cut(packet); err != nil || len(rest) != 0 || len(one) == 0 {
			t.Fatalf("no packet: %x, %v", packet, err)
		}
		if r.BufferSize() > 64<<10 {
			t.Fatalf("buffer of %d bytes", r.BufferSize())
		}
		all = append(all, packet...)
	}
}

func sameKind(a, b error) bool {
	for _, kind := range []error{io.EOF, io.ErrUnexpectedEOF, hep.ErrSync} {
		if errors.Is(a, kind) != errors.Is(b, kind) {
			return false
		}
	}
	return true
}
