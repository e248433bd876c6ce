package forward

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// sipEncoder writes SIP messages as they were, as siptrace duplicates them.
//
// With xheaders it adds siptrace's five header fields behind the last one, in
// front of the empty line, and changes nothing else, so Content-Length still
// holds:
//
//	X-Siptrace-Fromip: udp:192.0.2.1:5060
//	X-Siptrace-Toip: udp:[2001:db8::1]:5060
//	X-Siptrace-Time: SECONDS MICROSECONDS
//	X-Siptrace-Method: INVITE         of a reply, the method of its CSeq
//	X-Siptrace-Dir: in
//
// Readers want exactly these five, each with a value. So an unknown transport
// is written udp, and an unknown address any:255.255.255.255:5060, as Kamailio
// does; an unknown direction is written in, and a method that cannot be read
// UNKNOWN. A message that has no empty line gets one behind the new fields,
// since readers look for it, and a line end in front of them if it needs one.
type sipEncoder struct {
	xheaders bool
	msg      sipmsg.Message
}

func (s *sipEncoder) append(dst []byte, e *trace.Event) ([]byte, error) {
	switch {
	case e.Type != trace.TypeSIP:
		return dst, skip(skipNotSIP)
	case !s.xheaders:
		return append(dst, e.Payload...), nil
	}
	sipmsg.Scan(&s.msg, e.Payload)
	at, closed := headersEnd(&s.msg, e.Payload)
	dst = append(dst, e.Payload[:at]...)
	if !closed && at > 0 && e.Payload[at-1] != '\n' {
		dst = append(dst, "\r\n"...)
	}
	dst = appendXHeaders(dst, e, s.msg.EventMethod(e.Payload))
	if !closed {
		return append(dst, "\r\n"...), nil
	}
	return append(dst, e.Payload[at:]...), nil
}

func (s *sipEncoder) forget() {}

// headersEnd finds where the empty line begins that ends the header of b. It
// is the end of b, and false, if there is none.
func headersEnd(m *sipmsg.Message, b []byte) (int, bool) {
	if m.Flags&(sipmsg.NoEnd|sipmsg.KeepAlive) != 0 {
		if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
			return i + 2, true
		}
		return len(b), false
	}
	at := int(m.Body.Off)
	switch {
	case at > 0 && b[at-1] == '\n':
		at--
		for at > 0 && b[at-1] == '\r' {
			at--
		}
	case at > 0 && b[at-1] == '\r':
		at--
	}
	return at, true
}

func appendXHeaders(dst []byte, e *trace.Event, method []byte) []byte {
	dst = append(dst, "X-Siptrace-Fromip: "...)
	dst = appendEndpoint(dst, e.Transport, e.Src)
	dst = append(dst, "\r\nX-Siptrace-Toip: "...)
	dst = appendEndpoint(dst, e.Transport, e.Dst)
	us := e.Time.UnixMicro()
	dst = append(dst, "\r\nX-Siptrace-Time: "...)
	dst = strconv.AppendInt(dst, us/1e6, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, us%1e6, 10)
	dst = append(dst, "\r\nX-Siptrace-Method: "...)
	dst = appendMethod(dst, method)
	dst = append(dst, "\r\nX-Siptrace-Dir: "...)
	if e.Direction == trace.Out {
		return append(dst, "out\r\n"...)
	}
	return append(dst, "in\r\n"...)
}

// appendEndpoint appends proto:host:port.
func appendEndpoint(dst []byte, t trace.Transport, ap netip.AddrPort) []byte {
	if !ap.Addr().IsValid() {
		return append(dst, "any:255.255.255.255:5060"...)
	}
	if t == trace.TransportUnknown {
		t = trace.UDP
	}
	dst = append(dst, t.String()...)
	dst = append(dst, ':')
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()).AppendTo(dst)
}

// maxMethod is the longest method that Kamailio reads back.
const maxMethod = 50

// appendMethod appends method if it is one word that a header field can carry.
func appendMethod(dst, method []byte) []byte {
	ok := len(method) > 0 && len(method) <= maxMethod
	for _, c := range method {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok {
		return append(dst, "UNKNOWN"...)
	}
	return append(dst, method...)
}
