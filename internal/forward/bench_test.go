package forward

import (
	"net"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// deaf opens a UDP port on which nobody reads.
func deaf(t testing.TB) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.LocalAddr().String()
}

func TestUDP_doesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	for _, tt := range []struct{ scheme, options string }{
		{"hep+udp", "?version=1"}, {"hep+udp", "?version=2"}, {"hep+udp", ""},
		{"hep+udp", "?auth=key&node=central"}, {"sip+udp", ""}, {"sip+udp", "?xheaders=1"},
	} {
		t.Run(tt.scheme+tt.options, func(t *testing.T) {
			s := openSink(t, tt.scheme+"://"+deaf(t)+tt.options, Options{SkipAddressed: true, Guard: newFleet("home")})
			events := invites(200)
			events[0].Flags = trace.NoDuplicate
			events[1].Destinations = []string{"sip:127.0.0.1"}
			events[2].Type = trace.TypeLog
			events[3].Chunks = hep.AppendChunk(nil, trace.Vendor, trace.ChunkOrigin, []byte("home"))
			write := func() {
				if err := s.Write(t.Context(), events); err != nil {
					t.Fatal(err)
				}
			}
			write()
			if got := testing.AllocsPerRun(50, write); got != 0 {
				t.Errorf("a Write of %d events allocates %v times, want 0", len(events), got)
			}
		})
	}
}

func TestTCP_doesNotAllocateForAnEvent(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	c := listenTCP(t, "127.0.0.1:0", nil, drain)
	s := openSink(t, "hep+tcp://"+c.addr(), Options{})
	allocs := func(events []trace.Event) float64 {
		write := func() {
			if err := s.Write(t.Context(), events); err != nil {
				t.Fatal(err)
			}
		}
		write()
		return testing.AllocsPerRun(20, write)
	}
	few, many := allocs(invites(1)), allocs(invites(300))
	if most := few + 100; many > most { // how often it has to wait for an answer varies
		t.Errorf("a Write of 300 events allocates %v times, want about %v as for one event", many, few)
	}
}

func report(b *testing.B, batch int) {
	b.ReportMetric(float64(b.N)*float64(batch)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkUDP(b *testing.B) {
	for _, tt := range []struct{ name, scheme, options string }{
		{"HEP3", "hep+udp", ""}, {"HEP2", "hep+udp", "?version=2"},
		{"SIP", "sip+udp", ""}, {"SIP-xheaders", "sip+udp", "?xheaders=1"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			s := openSink(b, tt.scheme+"://"+deaf(b)+tt.options, Options{})
			events := invites(64)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(b.Context(), events); err != nil {
					b.Fatal(err)
				}
			}
			report(b, len(events))
		})
	}
}

func benchmarkStream(b *testing.B, s trace.Sink, batch int) {
	events := invites(batch)
	if err := s.Write(b.Context(), events[:1]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Write(b.Context(), events); err != nil {
			b.Fatal(err)
		}
	}
	report(b, batch)
}

func BenchmarkTCP(b *testing.B) {
	for name, batch := range map[string]int{"batch=1": 1, "batch=64": 64, "batch=1000": 1000} {
		b.Run(name, func(b *testing.B) {
			c := listenTCP(b, "127.0.0.1:0", nil, drain)
			benchmarkStream(b, openSink(b, "hep+tcp://"+c.addr(), Options{}), batch)
		})
	}
}

func BenchmarkTLS(b *testing.B) {
	for name, batch := range map[string]int{"batch=64": 64, "batch=1000": 1000} {
		b.Run(name, func(b *testing.B) {
			a := newAuthority(b)
			c := listenTCP(b, "127.0.0.1:0", a.server(a.issue(b, "server"), false, 0x0304), drain)
			benchmarkStream(b, openSink(b, "hep+tls://"+c.addr()+"?ca="+a.file("ca"), Options{}), batch)
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, tt := range []struct{ name, uri string }{
		{"HEP3", "hep+udp://h"}, {"HEP2", "hep+udp://h?version=2"}, {"SIP-xheaders", "sip+udp://h?xheaders=1"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			d := parse(b, tt.uri)
			var enc encoder = newHEPEncoder(d, nil)
			if d.XHeaders {
				enc = &sipEncoder{xheaders: true}
			}
			e := invite(1)
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = enc.append(buf[:0], &e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
