package listen

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// discard is a sink that takes everything.
var discard = trace.SinkFunc(func(context.Context, []trace.Event) error { return nil })

// invite is as long as an INVITE with SDP.
func invite() string {
	b := make([]byte, 800)
	for i := copy(b, message); i < len(b); i++ {
		b[i] = 'a'
	}
	return string(b)
}

func TestHEPUDP_allocatesNothingPerEvent(t *testing.T) {
	tests := map[string][]byte{
		"HEP3": packet(t, invite(), func(p *hep.Packet) {
			p.CorrelationID = []byte("one@192.0.2.1")
			p.Extra = hep.AppendChunk(nil, 0, hep.ChunkTCPFlags, []byte{2})
		}),
		"HEP2":       packet(t, invite(), func(p *hep.Packet) { p.Version, p.Node = 2, nil }),
		"HEP1":       packet(t, invite(), func(p *hep.Packet) { p.Version, p.Node, p.CaptureID = 1, nil, 0 }),
		"wrong key":  packet(t, invite(), func(p *hep.Packet) { p.AuthKey = []byte("wrong") }),
		"no payload": packet(t, "", nil),
		"forwarded":  been(t, invite(), "far", "farther"),
		"marked":     marked(t, "marked"),
		"trusted":    marked(t, "trusted"),
	}
	for name, b := range tests {
		o := HEPOptions{Guard: NewGuard(nil), Trust: name == "trusted"}
		o.Guard.SetFleet("home")
		if name == "wrong key" {
			o.Auth = "secret"
		}
		s := listenUDP(t, o)
		conn := dial(t, s)
		events := 0
		sink := trace.SinkFunc(func(_ context.Context, batch []trace.Event) error { events += len(batch); return nil })
		round := func() {
			for range 10 {
				send(t, conn, b)
			}
			for got := 0; got < 10; {
				n, err := s.recv.receive()
				if err != nil {
					t.Fatal(err)
				}
				s.batch(t.Context(), sink, n)
				got += n
			}
		}
		round() // a log line, names, scratch
		if n := testing.AllocsPerRun(100, round); n != 0 {
			t.Errorf("%s: %v allocations for 10 packets, want 0", name, n)
		}
		if want := 10 * 102; o.Auth == "" && name != "no payload" && name != "HEP1" && events != want {
			t.Errorf("%s: %d events, want %d", name, events, want)
		}
	}
}

func TestHEPTCP_allocatesNothingPerEvent(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{Trust: true})
	st := &stream{ctx: t.Context(), sink: discard, in: newIntake(s.count, "", nil, s.marks), s: s}
	b := marked(t, invite())
	round := func() {
		for range 10 {
			st.packet(b)
		}
		st.handOn()
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations for 10 packets, want 0", n)
	}
}

// BenchmarkIntake is what there is between the read and the sink.
func BenchmarkIntake(b *testing.B)       { benchmarkIntake(b, false) }
func BenchmarkIntake_marks(b *testing.B) { benchmarkIntake(b, true) }

func benchmarkIntake(b *testing.B, marks bool) {
	count, err := newCounters(prometheus.NewRegistry(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	in := newIntake(count, "", nil, newTestMarking(b, true))
	p := packet(b, invite(), nil)
	if marks {
		p = marked(b, invite())
	}
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if e, why, err := in.add(p); e == nil {
			b.Fatal(why, err)
		}
		if in.full() {
			_ = in.handOn(b.Context(), discard)
		}
	}
}

// BenchmarkHEPUDP_receive is all that a datagram costs us that waits in the
// socket: reading, decoding, the call of the sink. Sending is not counted.
func BenchmarkHEPUDP_receive(b *testing.B) {
	s := listenUDP(b, HEPOptions{})
	conn := dial(b, s)
	p := packet(b, invite(), nil)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		b.StopTimer()
		waiting := min(1024, b.N-done)
		for range waiting {
			send(b, conn, p)
		}
		b.StartTimer()
		for got := 0; got < waiting; {
			n, err := s.recv.receive()
			if err != nil {
				b.Fatal(err)
			}
			s.batch(b.Context(), discard, n)
			got += n
		}
		done += waiting
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkHEPUDP_loopback sends and receives, with no more on the way than
// the socket holds. What it takes is the sender's work, too.
func BenchmarkHEPUDP_loopback(b *testing.B) {
	s := listenUDP(b, HEPOptions{})
	var got atomic.Int64
	stop := start(b, s, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		got.Add(int64(len(events)))
		return nil
	}))
	conn := dial(b, s)
	p := packet(b, invite(), nil)
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	for sent := int64(0); sent < int64(b.N); sent++ {
		for sent-got.Load() >= 1024 {
			time.Sleep(50 * time.Microsecond)
		}
		send(b, conn, p)
	}
	for deadline := time.Now().Add(10 * time.Second); got.Load() < int64(b.N); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(deadline) {
			b.Fatalf("%d of %d arrived", got.Load(), b.N)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
	if n := dropped(s.count, dropKernel); n > 0 {
		b.Errorf("%d dropped", n)
	}
	stop()
}
