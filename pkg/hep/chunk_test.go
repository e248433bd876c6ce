package hep_test

import (
	"errors"
	"iter"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

func collect(chunks iter.Seq2[hep.Chunk, error]) (all []hep.Chunk, err error) {
	for c, e := range chunks {
		if e != nil {
			return all, e
		}
		all = append(all, c)
	}
	return all, nil
}

func TestChunks_yieldsEveryChunkInItsPlace(t *testing.T) {
	in := packet(t, chunk(hep.ChunkTOS, 0xb8), hep.AppendChunk(nil, 8, 0x80, []byte("conv")), chunk(0xffff))
	in = append(in, "behind the packet"...)
	all, err := collect(hep.Chunks(in))
	if err != nil || len(all) != 3 {
		t.Fatalf("%d chunks, %v, want 3", len(all), err)
	}
	c := all[1]
	if c.Vendor != hep.VendorGenesys || c.Type != hep.GenesysConversationID || string(c.Body) != "conv" || c.Offset != 13 {
		t.Errorf("chunk %+v, want the conversation id at byte 13", c)
	}
	if _, ok := all[2].Uint(); ok {
		t.Error("an empty body is a number")
	}
	if v, ok := all[0].Uint(); !ok || v != 0xb8 {
		t.Errorf("Uint() = %d, %v, want 184", v, ok)
	}
	for range hep.Chunks(in) {
		break // and nothing bad happens
	}
}

func TestChunks_endsWithWhatIsWrong(t *testing.T) {
	whole := packet(t, chunk(hep.ChunkTOS, 1), chunk(hep.ChunkPayload, make([]byte, 10)...))
	long := packet(t, chunk(hep.ChunkTOS, 1), chunk(hep.ChunkPayload, make([]byte, 10)...))
	long[18]++
	tests := []struct {
		name string
		in   []byte
		n    int
		want error
	}{
		{"cut in a body", whole[:20], 1, hep.ErrTruncated},
		{"cut in a head", whole[:15], 1, hep.ErrTruncated},
		{"cut between chunks", whole[:13], 1, hep.ErrTruncated},
		{"chunk longer than the packet", long, 1, hep.ErrChunk},
		{"half a head at the end", append(packet(t, chunk(1, 2)), 0)[:14], 1, nil},
		{"no packet", []byte("HTTP/1.1"), 0, hep.ErrNotHEP},
		{"version 2", []byte("\x02\x10\x02\x11\x00\x00"), 0, hep.ErrNotHEP},
		{"no length", []byte("HEP3"), 0, hep.ErrTruncated},
		{"bad length", []byte("HEP3\x00\x01"), 0, hep.ErrLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := collect(hep.Chunks(tt.in))
			if len(all) != tt.n || !errors.Is(err, tt.want) {
				t.Errorf("%d chunks and %v, want %d and %v", len(all), err, tt.n, tt.want)
			}
		})
	}
}

func TestWalk_readsChunksThatStandAlone(t *testing.T) {
	in := append(chunk(hep.ChunkTOS, 1), chunk(hep.ChunkMOS, 1, 2)...)
	all, err := collect(hep.Walk(in))
	if err != nil || len(all) != 2 || all[1].Offset != 7 {
		t.Errorf("chunks %+v, %v, want two", all, err)
	}
	if all, err := collect(hep.Walk(in[:14])); len(all) != 1 || !errors.Is(err, hep.ErrChunk) {
		t.Errorf("%d chunks, %v, want one and ErrChunk", len(all), err)
	}
	if all, err := collect(hep.Walk(nil)); len(all) != 0 || err != nil {
		t.Errorf("%d chunks, %v, want none", len(all), err)
	}
}

func TestChunks_doesNotAllocate(t *testing.T) {
	in := encode(t, usual(t))
	sum := 0
	n := testing.AllocsPerRun(100, func() {
		for c, err := range hep.Chunks(in) {
			if err != nil {
				t.Error(err)
			}
			sum += len(c.Body)
		}
	})
	if n != 0 || sum == 0 {
		t.Errorf("Chunks allocates %v times over %d bytes", n, sum)
	}
}
