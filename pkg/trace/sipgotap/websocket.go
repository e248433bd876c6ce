package sipgotap

import (
	"bytes"
	"errors"
	"io"

	"github.com/gobwas/ws"
)

// unwebsocket takes the messages out of one direction of a WebSocket
// connection (RFC 7118): after the handshake, a SIP message to a WebSocket
// message. Control frames are left out.
type unwebsocket struct {
	held    []byte
	open    bool   // the handshake is over
	dead    bool   // this is no WebSocket, or not any more
	skip    int64  // bytes of a frame that are of no use
	message []byte // fragments of a message, unmasked
	cut     bool   // the message is longer than what is kept of it
	garbage int
}

// errNotYet says that more bytes must come first.
var errNotYet = errors.New("not yet")

// feed takes what came, and calls found with each message that is whole. The
// message is found's for the moment of the call.
func (u *unwebsocket) feed(b []byte, found func(message []byte, cut bool)) {
	if u.dead {
		u.garbage += len(b)
		return
	}
	n := min(u.skip, int64(len(b)))
	u.skip -= n
	u.held = append(u.held, b[n:]...)
	rest := u.held
	for !u.dead && len(rest) > 0 {
		n, err := u.step(rest, found)
		rest = rest[n:]
		if err != nil {
			break
		}
	}
	if u.dead {
		u.garbage += len(rest)
		u.held, u.message = nil, nil
		return
	}
	if len(rest) < len(u.held) {
		u.held = u.held[:copy(u.held, rest)]
	}
	if len(u.held) == 0 && cap(u.held) > maxHeader {
		u.held = nil
	}
}

// step takes the handshake or one frame off b, and returns its length.
func (u *unwebsocket) step(b []byte, found func([]byte, bool)) (int, error) {
	if !u.open {
		return u.handshake(b)
	}
	r := bytes.NewReader(b)
	h, err := ws.ReadHeader(r)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return 0, errNotYet
	case err != nil, h.Rsv != 0: // an extension, and nobody has agreed to one
		u.dead = true
		return 0, errNotYet
	}
	head := len(b) - r.Len()
	keep := min(h.Length, int64(maxMessage-len(u.message)))
	if h.OpCode.IsControl() {
		keep = 0
	}
	if int64(len(b)-head) < keep {
		return 0, errNotYet
	}
	u.collect(h, b[head:head+int(keep)], found)
	used := min(h.Length, int64(len(b)-head))
	u.skip = h.Length - used
	return head + int(used), nil
}

// collect adds the payload of a frame to its message.
func (u *unwebsocket) collect(h ws.Header, payload []byte, found func([]byte, bool)) {
	if h.OpCode.IsControl() {
		return
	}
	if h.OpCode != ws.OpContinuation {
		u.message, u.cut = u.message[:0], false
	}
	at := len(u.message)
	u.message = append(u.message, payload...)
	u.cut = u.cut || int64(len(payload)) < h.Length
	if h.Masked {
		ws.Cipher(u.message[at:], h.Mask, 0)
	}
	if !h.Fin {
		return
	}
	if len(u.message) > 0 {
		found(u.message, u.cut)
	}
	u.message = u.message[:0]
	if cap(u.message) > maxHeader {
		u.message = nil
	}
}

// handshake passes the HTTP request or response that opens the connection.
func (u *unwebsocket) handshake(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	switch {
	case end < 0 && len(b) <= maxHeader:
		return 0, errNotYet
	case end < 0, !bytes.HasPrefix(b, []byte("GET ")) && !bytes.HasPrefix(b, []byte("HTTP/1.1 101")):
		u.dead = true
		return 0, errNotYet
	}
	u.open = true
	return end + 4, nil
}
