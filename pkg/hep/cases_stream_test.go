package hep_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

const mebi = 1 << 20

// drain reads r to its first error.
func drain(r *hep.Reader) (sizes []int, err error) {
	for {
		b, err := r.Next()
		if err != nil {
			return sizes, err
		}
		sizes = append(sizes, len(b))
	}
}

// streams is a row that gives these packets and then this error.
func streams(sizes []int, end error, options ...hep.ReaderOption) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		for name, src := range map[string]io.Reader{
			"at once":     bytes.NewReader(b),
			"by the byte": iotest.OneByteReader(bytes.NewReader(b)),
			"with EOF":    iotest.DataErrReader(bytes.NewReader(b)),
		} {
			got, err := drain(hep.NewReader(src, options...))
			if !slices.Equal(got, sizes) || !errors.Is(err, end) {
				t.Errorf("%s: packets %v then %v, want %v then %v", name, got, err, sizes, end)
			}
		}
	}
}

// refusesStream is a row that is out of step at byte 0, with a hint.
func refusesStream(hint string) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		_, err := hep.NewReader(bytes.NewReader(b)).Next()
		var sync *hep.SyncError
		if !errors.As(err, &sync) || !errors.Is(err, hep.ErrSync) {
			t.Fatalf("Next error = %v, want a SyncError", err)
		}
		if sync.Hint != hint || sync.Offset != 0 {
			t.Errorf("SyncError at %d with hint %q, want 0 and %q", sync.Offset, sync.Hint, hint)
		}
	}
}

// skips is a row that a Reader with Resync takes one packet from.
func skips(skipped int64, size int) func(*testing.T, []byte) {
	return func(t *testing.T, b []byte) {
		t.Helper()
		streams(nil, hep.ErrSync)(t, b)
		streams([]int{size}, io.EOF, hep.Resync(mebi))(t, b)
		r := hep.NewReader(bytes.NewReader(b), hep.Resync(mebi))
		if _, err := drain(r); err != io.EOF || r.Skipped() != skipped {
			t.Errorf("skipped %d then %v, want %d then EOF", r.Skipped(), err, skipped)
		}
	}
}

var streamCases = map[string]func(*testing.T, []byte){
	"S01": streams([]int{269, 399, 6}, io.EOF),
	"S02": streams([]int{269, 399, 6}, io.EOF),
	"S04": skips(10, 269),
	"S05": skips(34, 269),
	"S07": func(t *testing.T, b []byte) {
		streams([]int{65535, 269}, io.EOF)(t, b)
		r := hep.NewReader(&endless{b: b})
		for range 100 {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.BufferSize(); got > 64<<10 {
			t.Errorf("buffer of %d bytes, want at most 64 KiB", got)
		}
	},
	"S08": streams([]int{269}, io.ErrUnexpectedEOF),
	"S10": refusesStream("HTTP"),
	"S11": func(t *testing.T, b []byte) {
		streams([]int{269, 269}, io.EOF)(t, b)
		r := hep.NewReader(bytes.NewReader(b))
		for _, want := range []error{hep.ErrChunk, nil} {
			packet, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := hep.Decode(packet); !errors.Is(err, want) {
				t.Errorf("Decode error = %v, want %v", err, want)
			}
		}
	},
	"S13": func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			go func() { _, _ = there.Write(b) }()
			start := time.Now()
			_, err := hep.NewReader(here, hep.FrameDeadline(here, 5*time.Second)).Next()
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Next error = %v, want the deadline", err)
			}
			if got := time.Since(start); got != 5*time.Second {
				t.Errorf("gave up after %v, want 5s", got)
			}
		})
	},
	"S14": refusesStream("HEP2"),
	"S16": func(t *testing.T, b []byte) {
		r := hep.NewReader(bytes.NewReader(b), hep.Resync(mebi))
		sizes, err := drain(r) // in step, the first head is taken at its word
		if !slices.Equal(sizes, []int{0x4845}) || err != io.ErrUnexpectedEOF {
			t.Errorf("packets %v then %v, want one and unexpected EOF", sizes, err)
		}
		if got := r.Spent(); got > 2*len(b) {
			t.Errorf("work of %d for %d bytes", got, len(b))
		}
	},
}

func TestCases_stream(t *testing.T) {
	rows := cases(t, "stream")
	if len(rows) != len(streamCases) {
		t.Errorf("%d tests for %d rows", len(streamCases), len(rows))
	}
	for _, r := range rows {
		t.Run(r.id, func(t *testing.T) {
			if streamCases[r.id] == nil {
				t.Fatalf("no test for: %s", r.must)
			}
			streamCases[r.id](t, r.b)
		})
	}
}
