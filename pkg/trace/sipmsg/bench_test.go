package sipmsg_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

func BenchmarkScan(b *testing.B) {
	for _, bb := range []struct{ name, msg string }{
		{"INVITE", invite},
		{"200", ok},
		{"REGISTER", register},
		{"ACK", ack},
		{"compact", compact},
		{"folded", folded},
	} {
		b.Run(bb.name, func(b *testing.B) {
			msg := []byte(bb.msg)
			var m sipmsg.Message
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				sipmsg.Scan(&m, msg)
			}
		})
	}
}

// Messages made to be searched again and again: the rate must not fall as they grow.
func BenchmarkScan_hostile(b *testing.B) {
	const start = "INVITE sip:a@b SIP/2.0\r\n"
	for _, bb := range []struct{ name, begin, rest string }{
		{"line ends", start, "a\r"},
		{"folds", start + "Via: x", "\r "},
		{"brackets", start + "From: <sip:", "a@["},
		{"quotes", start + "From: ", `""`},
		{"parameters", start + "Via: x", `;a="\"`},
		{"parts", start + "c: multipart/x\r\n\r\n", "\n\r"},
	} {
		for _, size := range []int{1 << 10, 1 << 16} {
			b.Run(fmt.Sprintf("%s/%d", bb.name, size), func(b *testing.B) {
				msg := []byte(bb.begin + strings.Repeat(bb.rest, size/len(bb.rest)))
				var m sipmsg.Message
				b.SetBytes(int64(len(msg)))
				for b.Loop() {
					sipmsg.Scan(&m, msg)
				}
			})
		}
	}
}

func BenchmarkHeader(b *testing.B) {
	msg := []byte(invite)
	var m sipmsg.Message
	sipmsg.Scan(&m, msg)
	b.ReportAllocs()
	for b.Loop() {
		m.Header(msg, "P-Asserted-Identity")
	}
}

func BenchmarkHeaders(b *testing.B) {
	msg := []byte(invite)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for name := range sipmsg.Headers(msg) {
			n += len(name)
		}
	}
}

func BenchmarkIsSIP(b *testing.B) {
	msg := []byte(invite)
	b.ReportAllocs()
	for b.Loop() {
		sipmsg.IsSIP(msg)
	}
}
