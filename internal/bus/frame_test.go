package bus

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestToken(t *testing.T) {
	for in, want := range map[string]string{
		"":          "-",
		"edge-1_A":  "edge-1_A",
		"edge.1 *>": "edge_1___",
		"кран":      "____",
		"\xff\xfe":  "__",
		"0123456789012345678901234567890123456789": "01234567890123456789012345678901",
	} {
		if got := Token(in); got != want {
			t.Errorf("Token(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSizeClass_wastesAtMostAQuarter(t *testing.T) {
	seen := make(map[int]int)
	for n := 1; n <= maxFrame; n += 1 + n/100 {
		class, size := sizeClass(n)
		if size < n || n >= 256 && size > n+n/4 {
			t.Fatalf("a buffer for %d bytes has %d", n, size)
		}
		if other, ok := seen[class]; ok && other != size {
			t.Fatalf("class %d has the sizes %d and %d", class, other, size)
		}
		seen[class] = size
		if class >= len(buffers{}.classes) {
			t.Fatalf("class %d for %d bytes", class, n)
		}
		if again, same := sizeClass(size); again != class || same != size {
			t.Fatalf("a buffer of %d bytes comes back as class %d, was %d", size, again, class)
		}
	}
}

func TestQueue_isFirstInFirstOut(t *testing.T) {
	var q queue
	next, want := 0, 0
	for round := range 1000 {
		for range round % 7 {
			q.push(&frame{events: next})
			next++
		}
		for range round % 5 {
			f := q.pop()
			if f == nil {
				break
			}
			if f.events != want {
				t.Fatalf("popped %d, want %d", f.events, want)
			}
			want++
		}
		if got := q.len(); got != next-want {
			t.Fatalf("length %d, want %d", got, next-want)
		}
	}
	if cap(q.frames) > 4*q.len()+64 {
		t.Errorf("a queue of %d frames keeps room for %d", q.len(), cap(q.frames))
	}
}

func TestThrottle_countsWhatItKeepsBack(t *testing.T) {
	th := throttle{every: time.Second}
	now := time.Now()
	if n, ok := th.allow(now); !ok || n != 1 {
		t.Errorf("first: %d, %v, want 1, true", n, ok)
	}
	for range 3 {
		if _, ok := th.allow(now.Add(time.Millisecond)); ok {
			t.Error("allowed within the second")
		}
	}
	if n, ok := th.allow(now.Add(time.Second)); !ok || n != 4 {
		t.Errorf("after the second: %d, %v, want 4, true", n, ok)
	}
}

func TestUnpack_bounds(t *testing.T) {
	huge := s2.Encode(nil, make([]byte, maxFrame+1))
	header := nats.Header{HeaderEncoding: []string{encodingS2}}
	if _, _, err := unpack(header, huge, nil); !errors.Is(err, trace.ErrFrame) {
		t.Errorf("a frame that unfolds to %d bytes: error %v, want %v", maxFrame+1, err, trace.ErrFrame)
	}
	packets, buf, err := unpack(header, s2.Encode(nil, []byte("abc")), nil)
	if err != nil || string(packets) != "abc" {
		t.Fatalf("unpack = %q, %v", packets, err)
	}
	again, same, err := unpack(header, s2.Encode(nil, []byte("de")), buf)
	if err != nil || string(again) != "de" || &same[:1][0] != &buf[:1][0] {
		t.Errorf("the buffer is not used again: %q, %v", again, err)
	}
}

// FuzzUnpack holds that no message, however broken, does more harm than an
// error: no panic, no more memory than the limit, and what one message does
// is not felt by the next one in the same batch.
func FuzzUnpack(f *testing.F) {
	e := trace.Event{Time: time.Unix(1, 0), Payload: []byte("OPTIONS sip:a SIP/2.0\r\n\r\n"), TracedUsers: []string{"alice"}}
	e.Identify()
	good, err := trace.AppendEvent(nil, &e)
	if err != nil {
		f.Fatal(err)
	}
	good = append(good, good...)
	f.Add(good, "")
	f.Add(s2.Encode(nil, good), encodingS2)
	f.Add([]byte("HEP3\x00\x06"), "")
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, encodingS2)
	f.Fuzz(func(t *testing.T, body []byte, encoding string) {
		header := nats.Header{HeaderFrame: []string{frameVersion}}
		if encoding != "" {
			header[HeaderEncoding] = []string{encoding}
		}
		before := bytes.Clone(body)
		var decoder trace.FrameDecoder
		packets, buf, err := unpack(header, body, nil)
		if cap(buf) > maxFrame {
			t.Fatalf("took %d bytes", cap(buf))
		}
		n := 0
		if err == nil {
			if events, err := decoder.Append(packets); err == nil {
				n = len(events)
			}
		}
		events, err := decoder.Append(good)
		if err != nil || len(events) != n+2 || events[n+1].ID != e.ID {
			t.Fatalf("after %d events a good frame gives %d, %v", n, len(events)-n, err)
		}
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
	})
}
