package export

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// textEncoder writes for people: a line about each message, and the message
// with its lines as they are. What could move a terminal's cursor, or is no
// UTF-8, is written as \xNN.
//
//	--- 2026-11-22T08:00:00.123456Z udp 192.0.2.1:5060 → 198.51.100.2:5060 in edge-1
//	INVITE sip:bob@example.org SIP/2.0
//	…
type textEncoder struct{}

func (textEncoder) head(*buffer, bool) error { return nil }

func (textEncoder) check([]byte) error { return nil }

func (textEncoder) event(b *buffer, e *trace.Event) (cut bool, err error) {
	b.b = append(b.b, "--- "...)
	b.b = e.Time.UTC().AppendFormat(b.b, "2006-01-02T15:04:05.000000Z")
	word := func(s string) {
		if s != "" {
			b.b = appendPrintable(append(b.b, ' '), []byte(s))
		}
	}
	word(e.Transport.String())
	word(address(e.Src))
	word("→")
	word(address(e.Dst))
	word(e.Direction.String())
	word(e.Agent.Name)
	if e.Agent.Name == "" && e.Agent.ID != 0 {
		word("agent " + strconv.FormatUint(uint64(e.Agent.ID), 10))
	}
	if e.Type != trace.TypeSIP {
		word(fmt.Sprintf("HEP type %d", e.Type))
	}
	if e.Flags.Has(trace.Truncated) {
		word("cut")
	}
	b.b = append(b.b, '\n')
	for line := range bytes.Lines(e.Payload) {
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		b.b = append(appendPrintable(b.b, line), '\n')
	}
	b.b = append(b.b, '\n')
	return false, nil
}

// address is an address for people.
func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return "?"
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// appendPrintable appends v with everything that is not for reading as \xNN.
func appendPrintable(dst, v []byte) []byte {
	for len(v) > 0 {
		plain := 0
		for plain < len(v) && v[plain] >= ' ' && v[plain] < 0x7f {
			plain++
		}
		dst, v = append(dst, v[:plain]...), v[plain:]
		if len(v) == 0 {
			break
		}
		r, n := utf8.DecodeRune(v)
		if r == '\t' || strconv.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			dst = append(dst, v[:n]...)
		} else {
			for _, c := range v[:n] {
				dst = fmt.Appendf(dst, `\x%02x`, c)
			}
		}
		v = v[n:]
	}
	return dst
}
