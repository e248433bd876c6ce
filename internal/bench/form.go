package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// A form is one message of a site's calls as a whole packet, and the places in
// it that change.
type form struct {
	packet            []byte
	patches           []patch
	seconds, microsec int
	caller            int // address of the caller
}

// A patch copies a field of the call into the packet.
type patch struct{ to, from, n int }

// newForm makes the packet of one message as the proxy of a site sends it.
func newForm(s site, l line, number int, node string, where layout) (form, error) {
	payload, inPayload, err := where.expand(where.finish(s.fill(l.text)))
	if err != nil {
		return form{}, err
	}
	callID, inCallID, err := where.expand(s.fill("{callid}"))
	if err != nil {
		return form{}, err
	}
	p := hep.Packet{
		Version: 3, Protocol: hep.ProtocolUDP, Type: hep.TypeSIP, SrcPort: 5060, DstPort: 5060,
		Src: netip.AddrFrom4([4]byte{10}), Dst: proxyAddr(number), // the caller's is written over
		CaptureID: uint32(2001 + number), Node: fmt.Appendf(nil, "%s-%d", node, number),
		CorrelationID: callID, Payload: payload,
	}
	caller := uint16(hep.ChunkSrc4)
	if l.back {
		p.Src, p.Dst, caller = p.Dst, p.Src, hep.ChunkDst4
	}
	if err := p.SetTime(time.Unix(1, 0)); err != nil { // likewise
		return form{}, err
	}
	packet, err := p.Append(nil)
	if err != nil {
		return form{}, err
	}
	at := chunks(packet)
	return form{
		packet:   packet,
		patches:  append(moved(inPayload, at[hep.ChunkPayload]), moved(inCallID, at[hep.ChunkCorrelationID])...),
		seconds:  at[hep.ChunkSec],
		microsec: at[hep.ChunkUsec],
		caller:   at[caller],
	}, nil
}

// append appends the packet of a call.
func (f *form) append(dst []byte, c *call, at time.Time) []byte {
	start := len(dst)
	dst = append(dst, f.packet...)
	b := dst[start:]
	for _, p := range f.patches {
		copy(b[p.to:p.to+p.n], c.fields[p.from:])
	}
	copy(b[f.caller:], c.src[:])
	binary.BigEndian.PutUint32(b[f.seconds:], uint32(at.Unix()))
	binary.BigEndian.PutUint32(b[f.microsec:], uint32(at.Nanosecond()/1000))
	return dst
}

// chunks returns where the bodies of a packet's chunks begin, by type.
func chunks(packet []byte) map[uint16]int {
	const head = 6
	at := make(map[uint16]int)
	for off := head; off+head <= len(packet); {
		at[binary.BigEndian.Uint16(packet[off+2:])] = off + head
		off += max(head, int(binary.BigEndian.Uint16(packet[off+4:])))
	}
	return at
}

func moved(patches []patch, by int) []patch {
	list := make([]patch, len(patches))
	for i, p := range patches {
		list[i] = patch{p.to + by, p.from, p.n}
	}
	return list
}

// fill writes the site's names into a text. The Call-ID is made of other names
// and comes first.
func (s site) fill(text string) string {
	text = strings.ReplaceAll(text, "{callid}", s["callid"])
	for name, value := range s {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// layout says where in call.fields each field is.
type layout struct {
	fields []field
	at     map[string]int // by name: where it begins
	size   int
}

func newLayout(fields []field) layout {
	l := layout{fields: fields, at: make(map[string]int)}
	for _, f := range fields {
		l.at[f.name] = l.size
		l.size += f.width
	}
	return l
}

// finish gives a message its Content-Length and the line ends of SIP.
func (l layout) finish(text string) string {
	text = strings.ReplaceAll(text, "\n", "\r\n")
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	length := len(body)
	for _, f := range l.fields {
		name := "{" + f.name + "}"
		length += strings.Count(body, name) * (f.width - len(name))
	}
	return fmt.Sprintf("%s\r\nContent-Length: %d\r\n\r\n%s", head, length, body)
}

// expand leaves room for the fields that a text names, and says where it is.
func (l layout) expand(text string) ([]byte, []patch, error) {
	var out []byte
	var patches []patch
	for {
		before, rest, found := strings.Cut(text, "{")
		out = append(out, before...)
		if !found {
			return out, patches, nil
		}
		name, after, _ := strings.Cut(rest, "}")
		from, ok := l.at[name]
		if !ok {
			return nil, nil, fmt.Errorf("message names {%s}, which nobody knows", name)
		}
		n := l.width(name)
		patches = append(patches, patch{len(out), from, n})
		out = append(out, strings.Repeat("0", n)...)
		text = after
	}
}

func (l layout) width(name string) int {
	for _, f := range l.fields {
		if f.name == name {
			return f.width
		}
	}
	return 0
}
