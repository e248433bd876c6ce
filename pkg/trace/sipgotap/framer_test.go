package sipgotap

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// frames feeds chunks to a framer and returns the messages.
func frames(f *framer, chunks ...[]byte) (messages []string) {
	for _, c := range chunks {
		c = bytes.Clone(c)
		for f.feed(c); f.next(); {
			m, _ := f.message()
			messages = append(messages, string(m))
		}
		f.keep()
		for i := range c {
			c[i] = '#' // what it was fed is the caller's again
		}
	}
	return messages
}

func TestFramer_findsEveryMessage(t *testing.T) {
	invite, ack, bye := string(request("INVITE", "a", 1, 300)), string(request("ACK", "a", 1, 0)), string(request("BYE", "a", 2, 0))
	ok := string(response([]byte(bye), "200 OK"))
	bare := strings.Replace(bye, "Content-Length: 0\r\n", "", 1)
	fragment := strings.Replace(string(request("NOTIFY", "a", 3, 0)), "Content-Length: 0", fmt.Sprintf("Content-Length: %d", len(ok)), 1) + ok
	lf := strings.ReplaceAll(bye, "\r\n", "\n")
	tests := []struct {
		name, in string
		want     []string
		garbage  int
		pings    int
	}{
		{"one", invite, []string{invite}, 0, 0},
		{"several", invite + ok + ack + bye, []string{invite, ok, ack, bye}, 0, 0},
		{"pings and pongs", "\r\n\r\n" + invite + "\r\n" + ack + "\r\n\r\n", []string{invite, ack}, 0, 3},
		{"NULs between", "\x00\x00" + ack, []string{ack}, 0, 1},
		{"joined in the middle", invite[100:] + "\r\n" + ack, []string{ack}, len(invite) - 100 + 2, 0},
		{"joined in a body", invite[len(invite)-20:] + "\r\n" + ack, []string{ack}, 22, 0},
		{"something else", "\x16\x03\x01\x02\x00\x01\x00\n" + ack, []string{ack}, 8, 0},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + ack, []string{ack}, 27, 0},
		{"no Content-Length", bare + ack, []string{bare, ack}, 0, 0},
		{"no Content-Length, and a body", bare + "v=0\r\no=-\r\n" + ack, []string{bare + "v=0\r\no=-\r\n", ack}, 0, 0},
		{"compact Content-Length", strings.Replace(invite, "Content-Length", "l", 1) + ack, []string{strings.Replace(invite, "Content-Length", "l", 1), ack}, 0, 0},
		{"odd Content-Length", strings.Replace(invite, "Content-Length:", "CONTENT-LENGTH \t:\r\n ", 1) + ack,
			[]string{strings.Replace(invite, "Content-Length:", "CONTENT-LENGTH \t:\r\n ", 1), ack}, 0, 0},
		{"a message in a body", fragment + ack, []string{fragment, ack}, 0, 0},
		{"lines that end in LF", lf + ack, []string{lf, ack}, 0, 0},
		{"nothing but a start line", "OPTIONS sip:x SIP/2.0\r\n\r\n" + ack, []string{"OPTIONS sip:x SIP/2.0\r\n\r\n", ack}, 0, 0},
		{"a header without end", "OPTIONS sip:x SIP/2.0\r\n" + strings.Repeat("X-Filler: y\r\n", maxHeader/13) + ack,
			[]string{"OPTIONS sip:x SIP/2.0\r\n" + strings.Repeat("X-Filler: y\r\n", maxHeader/13) + ack}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f framer
			if got := frames(&f, []byte(tt.in)); !slices.Equal(got, tt.want) {
				t.Errorf("messages %q, want %q", got, tt.want)
			}
			if f.garbage != tt.garbage || f.pings != tt.pings {
				t.Errorf("%d bytes of garbage and %d pings, want %d and %d", f.garbage, f.pings, tt.garbage, tt.pings)
			}
		})
	}
}

func TestFramer_isIndifferentToCuts(t *testing.T) {
	var stream []byte
	var want []string
	for i := range 20 {
		m := request("INVITE", fmt.Sprint(i), 1, i*37%500)
		if i%4 == 0 {
			stream = append(stream, "\r\n\r\n"...)
		}
		if i%7 == 3 {
			stream = append(stream, "junk that nobody\r\nhas asked for\r\n"...)
		}
		stream = append(stream, m...)
		want = append(want, string(m))
	}
	check := func(t *testing.T, chunks [][]byte) {
		t.Helper()
		var f framer
		if got := frames(&f, chunks...); !slices.Equal(got, want) {
			t.Fatalf("%d messages in %d chunks, want %d, each as it was", len(got), len(chunks), len(want))
		}
		if want := 3 * len("junk that nobody\r\nhas asked for\r\n"); f.garbage != want {
			t.Errorf("%d bytes of garbage, want %d", f.garbage, want)
		}
	}
	t.Run("byte by byte", func(t *testing.T) {
		var chunks [][]byte
		for i := range stream {
			chunks = append(chunks, stream[i:i+1])
		}
		check(t, chunks)
	})
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		t.Run(fmt.Sprint("at random ", n), func(t *testing.T) {
			var chunks [][]byte
			for rest := stream; len(rest) > 0; {
				n := min(1+r.IntN(1500), len(rest))
				chunks, rest = append(chunks, rest[:n]), rest[n:]
			}
			check(t, chunks)
		})
	}
}

func TestFramer_cutsWhatIsTooLong(t *testing.T) {
	long := request("MESSAGE", "long", 1, maxMessage+100_000)
	next := request("BYE", "next", 1, 0)
	for _, size := range []int{1000, 100_000, len(long) + len(next)} {
		var f framer
		var got []string
		var cuts []bool
		for chunk := range slices.Chunk(append(bytes.Clone(long), next...), size) {
			for f.feed(chunk); f.next(); {
				m, cut := f.message()
				got, cuts = append(got, string(m)), append(cuts, cut)
			}
			f.keep()
		}
		if want := []string{string(long[:maxMessage]), string(next)}; !slices.Equal(got, want) {
			t.Fatalf("chunks of %d: %d messages, want the first %d bytes of the first, and the second", size, len(got), maxMessage)
		}
		if !slices.Equal(cuts, []bool{true, false}) {
			t.Errorf("chunks of %d: cut = %v, want only the first", size, cuts)
		}
	}
}

func TestFramer_holdsNoMoreThanOneMessage(t *testing.T) {
	lie := []byte(strings.Replace(string(request("INVITE", "a", 1, 0)), "Content-Length: 0", "Content-Length: 2000000000", 1))
	filler := bytes.Repeat([]byte("x"), 64<<10)
	for _, start := range [][]byte{lie, []byte("no line end "), []byte("OPTIONS sip:x SIP/2.0\r\nX: ")} {
		var f framer
		frames(&f, start)
		for range 100 {
			frames(&f, filler)
			if got := len(f.held); got > maxMessage+len(filler) {
				t.Fatalf("holds %d bytes after %q", got, start[:12])
			}
		}
	}
}

func TestFramer_wholeMessagesCostNothing(t *testing.T) {
	chunk := append(request("INVITE", "a", 1, 500), request("ACK", "a", 1, 0)...)
	var f framer
	got := testing.AllocsPerRun(100, func() {
		n := 0
		for f.feed(chunk); f.next(); n++ {
		}
		if f.keep(); n != 2 {
			t.Fatalf("%d messages, want 2", n)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations for two messages, want 0", got)
	}
}

func FuzzFramer(f *testing.F) {
	f.Add([]byte("\r\n\r\n"), uint16(1))
	f.Add(append(request("INVITE", "a", 1, 20), request("BYE", "a", 1, 0)...), uint16(7))
	f.Add([]byte("OPTIONS sip:x SIP/2.0\n\nSIP/2.0 200 OK\r\r\n\r\n"), uint16(3))
	f.Add([]byte("OPTIONS sip:x SIP/2.0\r\nl:5\r\n\r\n12345SIP/2.0 1\n\r\n"), uint16(9))
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		var one, many framer
		whole := frames(&one, stream)
		var cut []string
		for chunk := range slices.Chunk(stream, int(size)+1) {
			cut = append(cut, frames(&many, chunk)...)
			if len(many.held) > maxMessage+len(chunk) {
				t.Fatalf("holds %d bytes", len(many.held))
			}
		}
		// Every message is in the stream, in order, as it was.
		for _, list := range [][]string{whole, cut} {
			at := 0
			for _, m := range list {
				i := strings.Index(string(stream[at:]), m)
				if i < 0 || m == "" {
					t.Fatalf("message %q is not in the stream", m)
				}
				at += i + len(m)
			}
		}
		// Where each message tells its length, cuts make no difference.
		if tellLength(whole) && tellLength(cut) && (!slices.Equal(whole, cut) || one.garbage != many.garbage) {
			t.Fatalf("in one piece %q, in pieces of %d %q", whole, int(size)+1, cut)
		}
	})
}

// tellLength reports whether every message has a Content-Length.
func tellLength(messages []string) bool {
	for _, b := range messages {
		var m sipmsg.Message
		if sipmsg.Scan(&m, []byte(b)); m.ContentLength < 0 {
			return false
		}
	}
	return true
}
