package listen

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func seeds(f *testing.F) {
	f.Add(good(f, message))
	f.Add(packet(f, message, func(p *hep.Packet) { p.Version, p.Node = 2, nil }))
	f.Add(packet(f, message, func(p *hep.Packet) { p.Version, p.Node, p.CaptureID = 1, nil, 0 }))
	f.Add(packet(f, "", func(p *hep.Packet) {
		p.CompressedPayload, p.Payload = deflate(f, message), nil
		p.Extra = hep.AppendChunk(nil, 0, hep.ChunkTOS, []byte{1})
		p.Private = hep.AppendChunk(nil, 99, 1, []byte("x"))
	}))
	f.Add(append(good(f, "one"), good(f, "two")...))
	f.Add(been(f, message, "far", "farther"))
	f.Add(been(f, message, "far", "home"))
	f.Add(marked(f, message))
	f.Add(withMarks(f, message, chunk(trace.ChunkTransport, "\x07"), chunk(trace.ChunkFlags, "\xff\xff"), chunk(trace.ChunkTable, "")))
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte{})
}

// FuzzIntake holds that a datagram is an event or is counted, and that the
// events before and behind it stay what they are.
func FuzzIntake(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		count, err := newCounters(prometheus.NewRegistry(), "fuzz")
		if err != nil {
			t.Fatal(err)
		}
		guard := NewGuard(nil)
		guard.SetFleet("home")
		in := newIntake(count, "", guard, newTestMarking(t, true))
		first, last := good(t, "first"), good(t, "last")
		if e, _, _ := in.add(first); e == nil {
			t.Fatal("a good packet is none")
		}
		e, why, err := in.add(b)
		if (e == nil) != (why > 0 && why < numDrops && why.String() != "") || e != nil && err != nil {
			t.Fatalf("event %v, reason %d, error %v", e, why, err)
		}
		if e != nil && len(e.Payload) == 0 {
			t.Error("an event of nothing")
		}
		if e, _, _ := in.add(last); e == nil {
			t.Fatal("a good packet is none")
		}
		_ = in.handOn(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
			if string(events[0].Payload) != "first" || string(events[len(events)-1].Payload) != "last" {
				t.Errorf("neighbours are %q", payloads(events))
			}
			for i := range events {
				e := &events[i]
				e.Identify()
				if len(e.TracedUsers) > maxUsers || len(e.Destinations) > maxDestinations || len(e.Table) > maxTable || e.Rule != "" ||
					e.Transport > trace.WSS || e.Direction > trace.Out || e.Flags.Has(trace.UsersOnly) && len(e.TracedUsers) == 0 {
					t.Errorf("marks beyond their bounds: %+v", e)
				}
			}
			return nil
		}))
	})
}

// FuzzStream holds that no bytes on a connection make its source panic or
// hang, and that every packet is an event or is counted.
func FuzzStream(f *testing.F) {
	seeds(f)
	s, err := ListenHEPTCP("127.0.0.1:0", HEPOptions{}, prometheus.NewRegistry(), quiet())
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		packets, events, drops := testutil.ToFloat64(s.count.packets), testutil.ToFloat64(s.count.events), total(s.count)
		agent, conn := net.Pipe()
		go func() {
			_ = agent.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_, _ = agent.Write(b)
			_ = agent.Close()
		}()
		st := &stream{ctx: t.Context(), conn: conn, sink: discard, in: newIntake(s.count, "", nil, s.marks), s: s}
		err := st.run()
		_ = conn.Close()
		if err == nil {
			t.Error("a stream ends without a reason")
		}
		packets, events, drops = testutil.ToFloat64(s.count.packets)-packets, testutil.ToFloat64(s.count.events)-events, total(s.count)-drops
		if packets != events+drops {
			t.Errorf("%v packets, %v events, %v dropped", packets, events, drops)
		}
	})
}

// total is everything that was dropped.
func total(c *counters) (n float64) {
	for d := dropKernel; d < numDrops; d++ {
		n += testutil.ToFloat64(c.dropped[d])
	}
	return n
}
