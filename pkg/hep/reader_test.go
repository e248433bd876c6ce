package hep_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

func TestReader_doesNotAllocate(t *testing.T) {
	r := hep.NewReader(&endless{b: bytes.Repeat(encode(t, usual(t)), 100)}, hep.Resync(mebi), hep.SkipFiller())
	next := func() {
		if _, err := r.Next(); err != nil {
			t.Error(err)
		}
	}
	for range 1000 { // until the buffer has its size
		next()
	}
	if n := testing.AllocsPerRun(1000, next); n != 0 {
		t.Errorf("Next allocates %v times", n)
	}
}

func TestReader_countsTheStream(t *testing.T) {
	one, two := encode(t, plain(t)), encode(t, usual(t))
	r := hep.NewReader(bytes.NewReader(append(append([]byte("\r\n\x00"), one...), two...)), hep.SkipFiller())
	for _, want := range [][]byte{one, two} {
		if got, err := r.Next(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Next = %x, %v, want %x", got, err, want)
		}
	}
	if got, want := r.Offset(), int64(3+len(one)+len(two)); got != want {
		t.Errorf("Offset() = %d, want %d", got, want)
	}
	if got := r.Skipped(); got != 3 {
		t.Errorf("Skipped() = %d, want 3", got)
	}
}

func TestReader_takesFillerForJunkUnlessTold(t *testing.T) {
	in := append([]byte("\r\n\r\n"), encode(t, plain(t))...)
	if _, err := hep.NewReader(bytes.NewReader(in)).Next(); !errors.Is(err, hep.ErrSync) {
		t.Errorf("Next error = %v, want ErrSync", err)
	}
	r := hep.NewReader(bytes.NewReader([]byte("\r\n")), hep.SkipFiller())
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("filler alone: error = %v, want EOF", err)
	}
}

func TestReader_staysOutOfStep(t *testing.T) {
	in := append(encode(t, plain(t)), "\x16\x03\x01\x02\x00\x01"...)
	r := hep.NewReader(bytes.NewReader(in))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	want := "hep: stream out of step at byte 269: looks like TLS"
	for range 2 {
		if _, err := r.Next(); err == nil || err.Error() != want {
			t.Errorf("Next error = %v, want %s", err, want)
		}
	}
	zero := append([]byte("HEP3\x00\x00"), in...)
	if _, err := hep.NewReader(bytes.NewReader(zero)).Next(); !errors.Is(err, hep.ErrSync) {
		t.Errorf("total of 0: error = %v, want ErrSync", err)
	}
}

func TestReader_findsStepAgain(t *testing.T) {
	good := encode(t, plain(t))
	broken := packet(t, chunk(hep.ChunkPayload, good[:200]...)) // holds the start of a packet
	nested := packet(t, chunk(hep.ChunkPayload, good...))
	var in []byte
	for _, b := range [][]byte{good, nested, []byte("junk"), good, []byte("HEP3\x00\x00"), broken, good} {
		in = append(in, b...)
	}
	r := hep.NewReader(bytes.NewReader(in), hep.Resync(mebi))
	for i, want := range [][]byte{good, nested, good, broken, good} {
		got, err := r.Next()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("packet %d = %x, %v, want %x", i, got, err, want)
		}
	}
	if _, err := r.Next(); err != io.EOF || r.Skipped() != 4+6 {
		t.Errorf("skipped %d, then %v, want 10 and EOF", r.Skipped(), err)
	}
}

func TestReader_findsStepThroughFalseStarts(t *testing.T) {
	good := encode(t, plain(t))
	good[0] = 'E' // EEP3
	junk := "XEP3\x00\x06 HEP3\x00\x05 EEP1\x00\x06 HEP3\x00\x08xx HEP3\x00\x0d\x00\x00\x00\x01\x00\x06x "
	again := errors.New("try again")
	for cut := range len(junk) {
		src := &scripted{steps: []step{{[]byte(junk[:cut]), nil}, {nil, again}, {[]byte(junk[cut:]), nil}, {good, nil}, {nil, io.EOF}}}
		r := hep.NewReader(src, hep.Resync(mebi))
		if _, err := r.Next(); err != again {
			t.Fatalf("cut at %d: error = %v, want the source's", cut, err)
		}
		if got, err := r.Next(); err != nil || !bytes.Equal(got, good) {
			t.Fatalf("cut at %d: Next = %x, %v, want the packet", cut, got, err)
		}
		if r.Skipped() != int64(len(junk)) {
			t.Errorf("cut at %d: skipped %d, want %d", cut, r.Skipped(), len(junk))
		}
	}
	_, err := hep.NewReader(bytes.NewReader([]byte("nothing known"))).Next()
	if got, want := err.Error(), "hep: stream out of step at byte 0"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

func TestReader_looksNoFurtherThanItsBudget(t *testing.T) {
	good := encode(t, plain(t))
	for _, tt := range []struct {
		junk int
		want error
	}{{1000, nil}, {1001, hep.ErrSync}} {
		in := bytes.Join([][]byte{good, bytes.Repeat([]byte("x"), tt.junk), good}, nil)
		r := hep.NewReader(bytes.NewReader(in), hep.Resync(1000))
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		_, err := r.Next()
		if !errors.Is(err, tt.want) {
			t.Errorf("%d bytes of junk: error = %v, want %v", tt.junk, err, tt.want)
		}
		var sync *hep.SyncError
		if errors.As(err, &sync) && sync.Offset != int64(len(good)) {
			t.Errorf("SyncError at %d, want %d, where step was lost", sync.Offset, len(good))
		}
	}
}

// Each of these candidates has good chunks all the way to the last one, so
// that a search that only counted bytes would do half a billion steps.
func TestReader_boundsTheWorkOfASearch(t *testing.T) {
	trap := bytes.Repeat([]byte("HEP3\xff\xff\x00\x00\x77\x77\x00\x0c"), 100_000)
	r := hep.NewReader(bytes.NewReader(append([]byte("junk.."), trap...)), hep.Resync(mebi))
	if _, err := r.Next(); !errors.Is(err, hep.ErrSync) {
		t.Errorf("Next error = %v, want ErrSync", err)
	}
	if got := r.Spent(); got < mebi || got > mebi+6000 {
		t.Errorf("work of %d, want the budget of %d and one candidate at most", got, mebi)
	}
}

func TestReader_goesOnAfterAnErrorOfTheSource(t *testing.T) {
	good := encode(t, plain(t))
	again := errors.New("try again")
	for cut := range good {
		src := &scripted{steps: []step{{good[:cut], nil}, {nil, again}, {good[cut:], again}}}
		r := hep.NewReader(src)
		if _, err := r.Next(); err != again {
			t.Fatalf("cut at %d: error = %v, want the source's", cut, err)
		}
		if got, err := r.Next(); err != nil || !bytes.Equal(got, good) {
			t.Fatalf("cut at %d: Next = %x, %v, want the packet", cut, got, err)
		}
		if _, err := r.Next(); err != again {
			t.Fatalf("cut at %d: error = %v, want the source's", cut, err)
		}
	}
	stuck := hep.NewReader(&scripted{})
	if _, err := stuck.Next(); err != io.ErrNoProgress {
		t.Errorf("a source that gives nothing: error = %v, want ErrNoProgress", err)
	}
}

type step struct {
	b   []byte
	err error
}

// scripted is a source that goes through its steps and then gives nothing.
type scripted struct{ steps []step }

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.steps) == 0 {
		return 0, nil
	}
	first := s.steps[0]
	s.steps = s.steps[1:]
	return copy(p, first.b), first.err
}

func TestReader_givesEachPacketItsTime(t *testing.T) {
	good := encode(t, plain(t))
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		go func() {
			defer there.Close()
			for _, part := range [][]byte{good, good[:100]} { // as long between packets as it takes
				time.Sleep(time.Hour)
				_, _ = there.Write(part)
			}
			time.Sleep(900 * time.Millisecond)
			_, _ = there.Write(append(good[100:], good[:3]...)) // one in time, the next begins
			time.Sleep(900 * time.Millisecond)
			_, _ = there.Write(good[3:100])
			time.Sleep(time.Minute)
		}()
		r := hep.NewReader(here, hep.FrameDeadline(here, time.Second))
		for i := range 2 {
			if _, err := r.Next(); err != nil {
				t.Errorf("packet %d: %v", i, err)
			}
		}
		start := time.Now()
		_, err := r.Next()
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: error = %v, want the deadline after 1s", time.Since(start), err)
		}
		_ = here.Close()
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

func TestGuess_knowsWrongPeers(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"EEP3\x00\x00":                     "HEP3 with a bad length",
		"HEP3\x00\x06":                     "HEP3",
		"EEP1\x00\x06":                     "EEP1, the draft of 2013",
		"\x16\x03\x01\x02\x00":             "TLS",
		"\x1f\x8b\x08\x00":                 "gzip",
		"GET / HTTP/1.1\r\n":               "HTTP",
		"OPTIONS * HTTP/1.1\r\n":           "HTTP",
		"PRI * HTTP/2.0\r\n":               "HTTP/2",
		"OPTIONS sip:a SIP/2.0":            "SIP",
		"SIP/2.0 200 OK":                   "SIP",
		"PROXY TCP4 ":                      "the PROXY protocol",
		"\x00\x00\x00\x06HEP3\x00":         "HEP3 behind a length of 4 bytes",
		"\x01\x10\x02\x11":                 "HEP1",
		"\x02\x10\x1c\x11":                 "HEP2",
		"\x02\x10\x03\x11":                 "",
		"\x00\x01\x00\x00\x21\x12\xa4\x42": "STUN",
		"\x80\x00\x00\x01":                 "RTP or RTCP",
		"\x08\x02\x10\x11":                 "protobuf",
		"hello":                            "",
	} {
		if got := hep.Guess([]byte(in)); got != want {
			t.Errorf("Guess(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestQuirk_listsItsNames(t *testing.T) {
	if got, want := (hep.QuirkDuplicate | hep.QuirkNUL | hep.QuirkByteOrder).String(), "duplicate,byte-order,nul"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	if got := hep.Quirk(0).String(); got != "" {
		t.Errorf("String() of none = %q", got)
	}
}
