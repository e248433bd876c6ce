package sipgotap

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/gobwas/ws"
)

const (
	upgrade  = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n"
	upgraded = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
)

// frame is a WebSocket frame as bytes.
func frame(f ws.Frame) []byte {
	var b bytes.Buffer
	ws.MustWriteFrame(&b, f)
	return b.Bytes()
}

// unwrap feeds a stream in chunks of a size and returns the messages.
func unwrap(u *unwebsocket, stream []byte, size int) (messages []string) {
	for chunk := range slices.Chunk(stream, size) {
		u.feed(chunk, func(m []byte, _ bool) { messages = append(messages, string(m)) })
	}
	return messages
}

func TestUnwebsocket_findsEveryMessage(t *testing.T) {
	invite, bye := request("INVITE", "a", 1, 70_000), request("BYE", "a", 2, 0)
	mask := func(f ws.Frame) []byte { return frame(ws.MaskFrameWith(f, [4]byte{1, 2, 3, 4})) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := []struct {
		name   string
		stream []byte
		want   []string
	}{
		{"of a client", join([]byte(upgrade), mask(ws.NewTextFrame(invite)), mask(ws.NewTextFrame(bye))), []string{string(invite), string(bye)}},
		{"of a server", join([]byte(upgraded), frame(ws.NewTextFrame(invite)), frame(ws.NewBinaryFrame(bye))), []string{string(invite), string(bye)}},
		{"in fragments, with a ping between", join([]byte(upgrade),
			mask(ws.NewFrame(ws.OpText, false, invite[:5])), mask(ws.NewPingFrame([]byte("ping"))),
			mask(ws.NewFrame(ws.OpContinuation, false, invite[5:400])), mask(ws.NewFrame(ws.OpContinuation, true, invite[400:])),
			mask(ws.NewTextFrame(bye)), mask(ws.NewCloseFrame(nil))), []string{string(invite), string(bye)}},
		{"refused", []byte("HTTP/1.1 400 Bad Request\r\n\r\nno\r\n"), nil},
		{"no WebSocket at all", append(bytes.Clone(bye), bye...), nil},
		{"compressed", join([]byte(upgrade), mask(ws.Frame{Header: ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: ws.OpText, Length: 3}, Payload: []byte("xyz")}), mask(ws.NewTextFrame(bye))), nil},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 7, 1460, 1 << 20} {
			t.Run(fmt.Sprint(tt.name, " in chunks of ", size), func(t *testing.T) {
				var u unwebsocket
				if got := unwrap(&u, tt.stream, size); !slices.Equal(got, tt.want) {
					t.Errorf("%d messages, want %d, each as it was", len(got), len(tt.want))
				}
				if u.dead != (tt.want == nil) {
					t.Errorf("given up = %v, want %v", u.dead, tt.want == nil)
				}
			})
		}
	}
}

func TestUnwebsocket_cutsWhatIsTooLong(t *testing.T) {
	long, next := request("MESSAGE", "a", 1, maxMessage+100_000), request("BYE", "a", 2, 0)
	stream := bytes.Join([][]byte{[]byte(upgraded), frame(ws.NewTextFrame(long)), frame(ws.NewTextFrame(next))}, nil)
	var u unwebsocket
	var got []string
	var cuts []bool
	for chunk := range slices.Chunk(stream, 4000) {
		u.feed(chunk, func(m []byte, cut bool) { got, cuts = append(got, string(m)), append(cuts, cut) })
		if len(u.held) > maxMessage+8000 || len(u.message) > maxMessage {
			t.Fatalf("holds %d bytes and a message of %d", len(u.held), len(u.message))
		}
	}
	if !slices.Equal(got, []string{string(long[:maxMessage]), string(next)}) || !slices.Equal(cuts, []bool{true, false}) {
		t.Errorf("%d messages, cut %v; want the first cut at %d, and the second whole", len(got), cuts, maxMessage)
	}
}

func FuzzUnwebsocket(f *testing.F) {
	f.Add([]byte(upgrade), uint16(3))
	f.Add(append([]byte(upgraded), frame(ws.NewTextFrame(request("BYE", "a", 1, 0)))...), uint16(10))
	f.Add(append([]byte(upgrade), 0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 'x'), uint16(100))
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		var one, many unwebsocket
		whole, cut := unwrap(&one, stream, len(stream)+1), unwrap(&many, stream, int(size)+1)
		if !slices.Equal(whole, cut) {
			t.Fatalf("in one piece %q, in pieces of %d %q", whole, int(size)+1, cut)
		}
	})
}
