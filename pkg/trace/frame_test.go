package trace_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// invite returns an 800-byte INVITE, different for each i.
func invite(i int) []byte {
	msg := fmt.Sprintf("INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%08x\r\n"+
		"From: Alice <sip:alice@example.com>;tag=%08x\r\nTo: <sip:bob@example.com>\r\nCall-ID: %016x@192.0.2.1\r\n"+
		"CSeq: 1 INVITE\r\nContact: <sip:alice@192.0.2.1>\r\nContent-Type: application/sdp\r\n", i, i, i*7919)
	return append([]byte(msg), strings.Repeat("X-Pad: 0123456789\r\n", (800-len(msg))/19)+"\r\n"...)
}

func event(i int) trace.Event {
	e := trace.Event{
		Time:      time.UnixMicro(1_800_000_000_123_456 + int64(i)),
		Agent:     trace.Agent{ID: 2001, Name: "edge1"},
		Transport: trace.UDP,
		Src:       netip.MustParseAddrPort("192.0.2.1:5060"),
		Dst:       netip.MustParseAddrPort("198.51.100.7:5060"),
		Direction: trace.In,
		Type:      trace.TypeSIP,
		Payload:   invite(i),
	}
	e.Identify()
	return e
}

func full(i int) trace.Event {
	e := event(i)
	e.Src = netip.MustParseAddrPort("[2001:db8::1]:5061")
	e.Dst = netip.MustParseAddrPort("[2001:db8::2]:5061")
	e.Transport = trace.WSS
	e.Direction = trace.Out
	e.VLAN = 7
	e.CorrelationID = []byte("leg-b@example")
	e.Chunks = hep.AppendChunk(nil, 0, 0x20, []byte{1, 185})
	e.Table = "sip_trace_acme"
	e.TracedUsers = []string{"alice", "bob@example.com"}
	e.Destinations = []string{"sip:127.0.0.1:5085", "hep+udp://[::1]:9060"}
	e.Rule = "acme"
	e.Flags = trace.UsersOnly | trace.NoDuplicate
	e.Identify()
	return e
}

func encode(t testing.TB, events ...trace.Event) []byte {
	t.Helper()
	var b []byte
	var err error
	for i := range events {
		if b, err = trace.AppendEvent(b, &events[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func equal(t *testing.T, got, want []trace.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("decoded %d events, want %d", len(got), len(want))
	}
	for i := range got {
		if !got[i].Time.Equal(want[i].Time) {
			t.Errorf("event %d: time %v, want %v", i, got[i].Time, want[i].Time)
		}
		g, w := got[i].Clone(), want[i].Clone()
		g.Time, w.Time = time.Time{}, time.Time{}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("event %d:\n got %+v\nwant %+v", i, g, w)
		}
	}
}

func TestFrame_keepsEveryField(t *testing.T) {
	logged := event(3)
	logged.Type, logged.Payload = trace.TypeLog, []byte("call rejected: no route")
	empty := event(4)
	empty.Payload = []byte{}
	unknown := trace.Event{Time: time.Unix(0, 0), Type: trace.TypeSIP, Payload: []byte("x"), Transport: trace.TransportUnknown}
	want := []trace.Event{event(1), full(2), logged, empty, unknown}
	var d trace.FrameDecoder
	got, err := d.Decode(encode(t, want...))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, want)
}

func TestFrame_isWhatHEPOverTCPWants(t *testing.T) {
	frame := encode(t, event(1), full(2))
	r := hep.NewReader(bytes.NewReader(frame))
	for i := range 2 {
		pkt, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		p, err := hep.Decode(pkt)
		if err != nil {
			t.Fatal(err)
		}
		if want := event(1).Payload; i == 0 && !bytes.Equal(p.Payload, want) {
			t.Errorf("payload %q, want %q", p.Payload, want)
		}
	}
}

func TestFrame_vendorChunksCanBeCutOff(t *testing.T) {
	e := full(1)
	pkt := encode(t, e)
	var plain hep.Packet
	if err := trace.ToHEP(&plain, &e); err != nil {
		t.Fatal(err)
	}
	want, err := plain.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Clone(pkt[:len(want)])
	if err := hep.PatchLength(cut); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(cut, want) {
		t.Error("cutting the chunks behind the payload does not leave the plain packet")
	}
}

func TestAppendEvent_carriesWhatHEP3CannotHold(t *testing.T) {
	noise := make([]byte, 200_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	tests := []struct {
		name    string
		payload []byte
		cut     bool
	}{
		{"the largest that fits plainly", invite(1)[:700], false},
		{"compressible", []byte(hex.EncodeToString(noise[:50_000])), false},
		{"incompressible", noise, true},
		{"more than may unfold", []byte(strings.Repeat("a", 1<<20+1) + string(noise[:40_000])), true},
		{"a bomb", make([]byte, 1<<20), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := event(1)
			e.Payload = tt.payload
			next := event(2)
			var d trace.FrameDecoder
			got, err := d.Decode(encode(t, e, next, e))
			if err != nil {
				t.Fatal(err)
			}
			if got[0].Flags.Has(trace.Truncated) != tt.cut {
				t.Errorf("truncated = %v, want %v", got[0].Flags.Has(trace.Truncated), tt.cut)
			}
			if !bytes.HasPrefix(tt.payload, got[0].Payload) || (!tt.cut && len(got[0].Payload) != len(tt.payload)) {
				t.Errorf("payload of %d bytes came back as %d", len(tt.payload), len(got[0].Payload))
			}
			if !bytes.Equal(got[0].Payload, got[2].Payload) || !bytes.Equal(got[1].Payload, next.Payload) {
				t.Error("an event behind a long one is not what was sent")
			}
		})
	}
}

func TestFrame_unfoldsToNoMoreThanItsSizeAllows(t *testing.T) {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write(make([]byte, 1<<20))
	_ = w.Close()
	p := hep.Packet{Version: 3, CompressedPayload: z.Bytes()}
	bomb, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	var d trace.FrameDecoder
	if events, err := d.Decode(append(encode(t, event(1)), bomb...)); !errors.Is(err, trace.ErrFrame) || !errors.Is(err, hep.ErrTooLarge) || len(events) != 0 {
		t.Errorf("%d events, error %v; want none of a frame with a bomb of %d bytes", len(events), err, len(bomb))
	}
}

func TestAppendEvent_refusesWhatCannotBeCarried(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*trace.Event)
	}{
		{"before 1970", func(e *trace.Event) { e.Time = time.Unix(-1, 0) }},
		{"after 2106", func(e *trace.Event) { e.Time = time.Unix(1<<32, 0) }},
		{"table name of 70,000 bytes", func(e *trace.Event) { e.Table = strings.Repeat("t", 70_000) }},
		{"users of 70,000 bytes", func(e *trace.Event) {
			e.TracedUsers = []string{strings.Repeat("u", 35_000), strings.Repeat("v", 35_000)}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := event(1)
			tt.spoil(&e)
			before := encode(t, event(7))
			after, err := trace.AppendEvent(bytes.Clone(before), &e)
			if err == nil {
				t.Fatal("no error")
			}
			if !bytes.Equal(after, before) {
				t.Error("the frame is not as it was before the refused event")
			}
		})
	}
}

func TestFrameDecoder_errors(t *testing.T) {
	good := encode(t, event(1))
	badID := bytes.Clone(good)
	id := bytes.Index(badID, []byte{0x53, 0x54, 0x01, 0x01})
	binary.BigEndian.PutUint16(badID[id+4:], 21)
	badID = badID[:len(badID)-1]
	_ = hep.PatchLength(badID)
	tests := []struct {
		name string
		in   []byte
	}{
		{"not HEP", []byte("GET / HTTP/1.1\r\n\r\n")},
		{"cut packet", good[:len(good)-1]},
		{"good, then cut", append(bytes.Clone(good), good[:20]...)},
		{"length below the head", []byte("HEP3\x00\x05")},
		{"event id of 15 bytes", badID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d trace.FrameDecoder
			if _, err := d.Decode(tt.in); !errors.Is(err, trace.ErrFrame) {
				t.Fatalf("error = %v, want ErrFrame", err)
			}
		})
	}
}

func TestFrameDecoder_aBadFrameSpoilsNoOther(t *testing.T) {
	var d trace.FrameDecoder
	d.Reset()
	first := encode(t, event(1), event(2))
	if _, err := d.Append(first); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Append(append(encode(t, event(3)), "junk"...)); err == nil || len(got) != 2 {
		t.Fatalf("after a bad frame: %d events, error %v; want the 2 before and an error", len(got), err)
	}
	got, err := d.Append(encode(t, full(4)))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, []trace.Event{event(1), event(2), full(4)})
}

func TestFrame_doesNotAllocate(t *testing.T) {
	events := make([]trace.Event, 32)
	for i := range events {
		events[i] = event(i)
		events[i].Table, events[i].TracedUsers = "sip_trace_acme", []string{"alice", "bob"}
	}
	var d trace.FrameDecoder
	buf := encode(t, events...)
	allocs := testing.AllocsPerRun(50, func() {
		buf = buf[:0]
		for i := range events {
			var err error
			if buf, err = trace.AppendEvent(buf, &events[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := d.Decode(buf); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a frame of 32, want 0", allocs)
	}
}

func TestFrameDecoder_keepsChunksThatStandApart(t *testing.T) {
	scattered := func(i byte) []byte {
		e := event(int(i))
		pkt := encode(t, e)
		pkt = hep.AppendChunk(pkt, 0, 0x20, []byte{0, i})
		pkt = hep.AppendChunk(pkt, trace.Vendor, trace.ChunkDirection, []byte{byte(trace.Out)})
		pkt = hep.AppendChunk(pkt, 0, 0x21, []byte{0, i})
		if err := hep.PatchLength(pkt); err != nil {
			t.Fatal(err)
		}
		return pkt
	}
	var d trace.FrameDecoder
	got, err := d.Decode(append(scattered(1), scattered(2)...))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range got {
		want := hep.AppendChunk(hep.AppendChunk(nil, 0, 0x20, []byte{0, byte(i + 1)}), 0, 0x21, []byte{0, byte(i + 1)})
		if !bytes.Equal(e.Chunks, want) || e.Direction != trace.Out {
			t.Errorf("event %d: chunks %x, direction %q; want %x, out", i, e.Chunks, e.Direction, want)
		}
	}
}

func TestFrame_keepsWhereAnEventHasBeen(t *testing.T) {
	e := event(1)
	e.Chunks = hep.AppendChunk(nil, 0, 0x20, []byte{0, 1})
	for _, fleet := range []string{"fleet-one", "fleet-two"} {
		e.Chunks = hep.AppendChunk(e.Chunks, trace.Vendor, trace.ChunkOrigin, []byte(fleet))
	}
	want := []trace.Event{e, event(2), e}
	var d trace.FrameDecoder
	got, err := d.Decode(encode(t, want...))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, want)
}

func TestIdentify_sameMessageSameID(t *testing.T) {
	a, b := event(1), event(1)
	if a.ID != b.ID || a.ID.IsZero() {
		t.Fatalf("IDs %v and %v, want one that is not zero", a.ID, b.ID)
	}
	if got, want := a.ID.Time(), a.Time.Truncate(time.Millisecond); !got.Equal(want) {
		t.Errorf("ID time %v, want %v", got, want)
	}
	back, err := trace.ParseID(a.ID.String())
	if err != nil || back != a.ID {
		t.Errorf("ParseID(%s) = %v, %v", a.ID, back, err)
	}
	changes := map[string]func(*trace.Event){
		"time":      func(e *trace.Event) { e.Time = e.Time.Add(time.Microsecond) },
		"agent id":  func(e *trace.Event) { e.Agent.ID++ },
		"agent":     func(e *trace.Event) { e.Agent.Name = "edge2" },
		"source":    func(e *trace.Event) { e.Src = netip.MustParseAddrPort("192.0.2.1:5061") },
		"target":    func(e *trace.Event) { e.Dst = netip.MustParseAddrPort("198.51.100.8:5060") },
		"transport": func(e *trace.Event) { e.Transport = trace.TCP },
		"payload":   func(e *trace.Event) { e.Payload = append(bytes.Clone(e.Payload), ' ') },
	}
	for name, change := range changes {
		c := event(1)
		change(&c)
		c.Identify()
		if c.ID == a.ID {
			t.Errorf("another %s gives the same ID", name)
		}
	}
}

func FuzzFrameDecoder(f *testing.F) {
	f.Add(encode(f, event(1), full(2)))
	f.Add([]byte("HEP3\x00\x06"))
	origin := event(3)
	origin.Chunks = hep.AppendChunk(nil, trace.Vendor, trace.ChunkOrigin, []byte("fleet"))
	f.Add(encode(f, origin))
	none := hep.AppendChunk([]byte("HEP3\x00\x0d"), 0, 1, []byte{2}) // no payload
	f.Add(none)
	f.Fuzz(func(t *testing.T, body []byte) {
		var d trace.FrameDecoder
		events, err := d.Decode(body)
		if err != nil {
			return
		}
		var again []byte
		for i := range events {
			if again, err = trace.AppendEvent(again, &events[i]); err != nil {
				return // more than one packet can carry once it is put in order
			}
		}
		kept := make([]trace.Event, len(events))
		for i := range events {
			kept[i] = events[i].Clone()
			if kept[i].Payload == nil {
				kept[i].Payload = []byte{} // a packet of ours always has one
			}
		}
		back, err := d.Decode(again)
		if err != nil {
			t.Fatalf("what was encoded does not decode: %v", err)
		}
		equal(t, back, kept)
	})
}

func BenchmarkFrame(b *testing.B) {
	events := make([]trace.Event, 32)
	for i := range events {
		events[i] = event(i)
	}
	var d trace.FrameDecoder
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = buf[:0]
		for i := range events {
			buf, _ = trace.AppendEvent(buf, &events[i])
		}
		if _, err := d.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/event")
}

func BenchmarkIdentify(b *testing.B) {
	e := event(1)
	b.ReportAllocs()
	for b.Loop() {
		e.Identify()
	}
}
