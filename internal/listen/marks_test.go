package listen

import (
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func newTestMarking(t testing.TB, trust bool) *marking {
	t.Helper()
	m, err := newMarking(trust, "test", prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// chunk is one of siptrace's own.
func chunk(typ uint16, body string) []byte {
	return hep.AppendChunk(nil, trace.Vendor, typ, []byte(body))
}

// withMarks is a HEP3 packet with chunks behind its payload.
func withMarks(t testing.TB, payload string, chunks ...[]byte) []byte {
	t.Helper()
	return packet(t, payload, func(p *hep.Packet) {
		for _, c := range chunks {
			p.Private = append(p.Private, c...)
		}
	})
}

// event is an event with every mark there is.
func event(payload string) trace.Event {
	e := trace.Event{
		Time: noon, Agent: trace.Agent{ID: 2001, Name: "edge1"}, Transport: trace.WSS, Src: src, Dst: dst, Direction: trace.Out,
		Type: trace.TypeSIP, Payload: []byte(payload), Table: "fraud", TracedUsers: []string{"alice", "bob"},
		Destinations: []string{"hep+udp://192.0.2.9:9060"}, Flags: trace.NoDuplicate | trace.UsersOnly,
	}
	e.Identify()
	return e
}

// marked is the packet of event, as a program sends it that marks its messages.
func marked(t testing.TB, payload string) []byte {
	t.Helper()
	e := event(payload)
	e.Rule = "of somebody else"
	b, err := trace.AppendEvent(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// take is what becomes of packets at an intake.
func take(t *testing.T, m *marking, packets ...[]byte) []trace.Event {
	t.Helper()
	count, err := newCounters(prometheus.NewRegistry(), "test")
	if err != nil {
		t.Fatal(err)
	}
	in := newIntake(count, "", nil, m)
	for _, b := range packets {
		if e, why, err := in.add(b); e == nil {
			t.Fatalf("no event: %v, %v", why, err)
		}
	}
	box := newInbox()
	if err := in.handOn(t.Context(), box); err != nil {
		t.Fatal(err)
	}
	return box.events
}

// wantLeftOut compares all that the metrics say with what they should.
func wantLeftOut(t *testing.T, c *markCounters, want map[leftOut]int) {
	t.Helper()
	for l := leftUntrusted; l < numLeftOut; l++ {
		if got := int(testutil.ToFloat64(c[l])); got != want[l] {
			t.Errorf("left out for %q: got %d, want %d", l, got, want[l])
		}
	}
}

func TestMarks_ofTrustedSendersAreInTheEvent(t *testing.T) {
	m := newTestMarking(t, true)
	plain, other := good(t, "plain"), event("two")
	other.TracedUsers, other.Table, other.Flags = []string{"carol"}, "", 0
	second, err := trace.AppendEvent(nil, &other)
	if err != nil {
		t.Fatal(err)
	}
	got := take(t, m, marked(t, "one"), plain, second)
	for i := range got {
		got[i].Identify() // as a tap does
	}
	if want := event("one"); !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	if got[1].Table != "" || got[1].TracedUsers != nil || got[1].Direction != 0 || got[1].Transport != trace.UDP {
		t.Errorf("got %+v, want no marks of a neighbour", got[1])
	}
	if !reflect.DeepEqual(got[2], other) {
		t.Errorf("got %+v, want %+v", got[2], other)
	}
	wantLeftOut(t, m.count, nil)
}

func TestMarks_ofStrangersAreLeftOut(t *testing.T) {
	m := newTestMarking(t, false)
	got := take(t, m, marked(t, "one"), been(t, "two", "far"), good(t, "three"), withMarks(t, "four", chunk(trace.ChunkEventID, "0123456789abcdef")))
	want := trace.Event{
		Time: noon, Agent: trace.Agent{ID: 2001, Name: "edge1"}, Transport: trace.TLS, Src: src, Dst: dst,
		Type: trace.TypeSIP, Payload: []byte("one"),
	}
	want.Identify()
	got[0].Identify()
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	if got, want := string(got[1].Chunks), string(chunk(trace.ChunkOrigin, "far")); got != want {
		t.Errorf("chunks %q, want %q: where an event has been anybody may say", got, want)
	}
	wantLeftOut(t, m.count, map[leftOut]int{leftUntrusted: 1})
}

// listening are a source of each kind with the same options, and how to send to it.
func listening(t *testing.T, o HEPOptions, each func(t *testing.T, s Listener, m *markCounters, c *counters, connect func() net.Conn)) {
	t.Helper()
	t.Run("udp", func(t *testing.T) {
		s := listenUDP(t, o)
		each(t, s, s.in.marks.count, s.count, func() net.Conn { return dial(t, s) })
	})
	t.Run("tcp", func(t *testing.T) {
		s, _ := listenTCP(t, o)
		each(t, s, s.marks.count, s.count, func() net.Conn { return dial(t, s) })
	})
	t.Run("tls", func(t *testing.T) {
		files := newTLS(t)
		files.CA = files.Cert
		s, err := ListenHEPTLS("127.0.0.1:0", files, o, prometheus.NewRegistry(), quiet())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		each(t, s, s.marks.count, s.count, func() net.Conn { return dialTLS(t, s, files, &files) })
	})
}

func TestMarks_comeInWhereTheInputTrusts(t *testing.T) {
	listening(t, HEPOptions{Trust: true}, func(t *testing.T, s Listener, m *markCounters, c *counters, connect func() net.Conn) {
		in := newInbox()
		start(t, s, in)
		send(t, connect(), marked(t, "one"), withMarks(t, "two", chunk(trace.ChunkTable, "")))
		events := in.wait(t, 2)
		if e := events[0]; e.Table != "fraud" || fmt.Sprint(e.TracedUsers) != "[alice bob]" || e.Transport != trace.WSS || e.Direction != trace.Out {
			t.Errorf("got %+v, want the marks", e)
		}
		if string(events[1].Payload) != "two" {
			t.Errorf("got %q, want the message of a bad mark all the same", events[1].Payload)
		}
		wantLeftOut(t, m, map[leftOut]int{leftTable: 1})
		wantDropped(t, c, nil)
	})
}

func TestMarks_doNotComeInOtherwise(t *testing.T) {
	listening(t, HEPOptions{}, func(t *testing.T, s Listener, m *markCounters, c *counters, connect func() net.Conn) {
		in := newInbox()
		start(t, s, in)
		send(t, connect(), marked(t, "one"))
		if e := in.wait(t, 1)[0]; e.Table != "" || e.TracedUsers != nil || e.Destinations != nil || e.Flags != 0 || e.Direction != 0 {
			t.Errorf("got %+v, want no marks", e)
		}
		wantLeftOut(t, m, map[leftOut]int{leftUntrusted: 1})
		wantDropped(t, c, nil)
	})
}

func TestMarks_needTheKeyThatIsAskedFor(t *testing.T) {
	s := listenUDP(t, HEPOptions{Trust: true, Auth: "secret"})
	in := newInbox()
	start(t, s, in)
	conn := dial(t, s)
	with := func(key, payload string) []byte {
		e := event(payload)
		if key != "" {
			e.Chunks = hep.AppendChunk(nil, hep.VendorGeneric, hep.ChunkAuthKey, []byte(key))
		}
		b, err := trace.AppendEvent(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	send(t, conn, with("", "none"), with("wrong", "wrong"), with("secret", "right"))
	events := in.wait(t, 1)
	if got := payloads(events); got != "right" || events[0].Table != "fraud" || events[0].Chunks != nil {
		t.Errorf("let in %q: %+v", got, events[0])
	}
	wantDropped(t, s.count, map[drop]int{dropAuth: 2})
}

func TestMarks_ofTrustedSendersDoNotHideALoop(t *testing.T) {
	guard := NewGuard(nil)
	guard.SetFleet("home")
	s := listenUDP(t, HEPOptions{Trust: true, Guard: guard})
	in := newInbox()
	start(t, s, in)
	table := chunk(trace.ChunkTable, "fraud")
	send(t, dial(t, s), withMarks(t, "back", table, chunk(trace.ChunkOrigin, "home")), withMarks(t, "far", table, chunk(trace.ChunkOrigin, "far")))
	events := in.wait(t, 1)
	if got := payloads(events); got != "far" || events[0].Table != "fraud" || string(events[0].Chunks) != string(chunk(trace.ChunkOrigin, "far")) {
		t.Errorf("let in %q: %+v", got, events[0])
	}
	wantDropped(t, s.count, map[drop]int{dropLoop: 1})
}

func TestMarks_thatAreNoGoodCostOnlyThemselves(t *testing.T) {
	many := func(typ uint16, n int) (chunks [][]byte) {
		for i := range n {
			chunks = append(chunks, chunk(typ, fmt.Sprint("x", i)))
		}
		return chunks
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name   string
		chunks [][]byte
		want   func(e *trace.Event) bool
		left   map[leftOut]int
	}{
		{"a transport of no number", [][]byte{chunk(trace.ChunkTransport, "\x07"), chunk(trace.ChunkTransport, "\x00"), chunk(trace.ChunkTransport, "")},
			func(e *trace.Event) bool { return e.Transport == trace.UDP }, map[leftOut]int{leftTransport: 3}},
		{"a direction of no number", [][]byte{chunk(trace.ChunkDirection, "\x03"), chunk(trace.ChunkDirection, "\x00\x01")},
			func(e *trace.Event) bool { return e.Direction == trace.DirectionUnknown }, map[leftOut]int{leftDirection: 2}},
		{"flags that nobody knows", [][]byte{chunk(trace.ChunkFlags, "\x80\x01"), chunk(trace.ChunkFlags, "\x01")},
			func(e *trace.Event) bool { return e.Flags == 0 }, map[leftOut]int{leftFlags: 2}},
		{"an endless table", [][]byte{chunk(trace.ChunkTable, long(maxTable+1))},
			func(e *trace.Event) bool { return e.Table == "" }, map[leftOut]int{leftTable: 1}},
		{"a table that the writer will refuse", [][]byte{chunk(trace.ChunkTable, `x"; drop`)},
			func(e *trace.Event) bool { return e.Table == `x"; drop` }, nil},
		{"too many users", many(trace.ChunkTracedUser, maxUsers+5),
			func(e *trace.Event) bool { return len(e.TracedUsers) == maxUsers && e.TracedUsers[maxUsers-1] == "x31" }, map[leftOut]int{leftUser: 5}},
		{"the same user again", [][]byte{chunk(trace.ChunkTracedUser, "alice"), chunk(trace.ChunkTracedUser, "alice")},
			func(e *trace.Event) bool { return len(e.TracedUsers) == 1 }, nil},
		{"no user at all", [][]byte{chunk(trace.ChunkFlags, "\x00\x08"), chunk(trace.ChunkTracedUser, ""), chunk(trace.ChunkTracedUser, long(maxUser+1))},
			func(e *trace.Event) bool { return e.TracedUsers == nil && e.Flags == 0 }, map[leftOut]int{leftUser: 2}},
		{"too many destinations", many(trace.ChunkDestination, maxDestinations+1),
			func(e *trace.Event) bool { return len(e.Destinations) == maxDestinations }, map[leftOut]int{leftDestination: 1}},
		{"an endless destination", [][]byte{chunk(trace.ChunkDestination, long(maxDestination+1))},
			func(e *trace.Event) bool { return e.Destinations == nil }, map[leftOut]int{leftDestination: 1}},
		{"a rule, an id and what is still to be invented", [][]byte{chunk(trace.ChunkRule, "x"), chunk(trace.ChunkEventID, "short"), chunk(0x7fff, "x")},
			func(e *trace.Event) bool { return e.Rule == "" && e.ID.IsZero() && e.Chunks == nil }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newTestMarking(t, true)
			got := take(t, m, withMarks(t, message, tt.chunks...))[0]
			if !tt.want(&got) || string(got.Payload) != message {
				t.Errorf("got %+v", got)
			}
			wantLeftOut(t, m.count, tt.left)
		})
	}
}

func TestMarks_thatAreLeftOutAreSpokenOf(t *testing.T) {
	log := new(words)
	m, err := newMarking(true, "test", prometheus.NewRegistry(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	take(t, m, withMarks(t, "one", chunk(trace.ChunkTable, "")), withMarks(t, "two", chunk(trace.ChunkTable, "")))
	m.bad.flush()
	if got := log.String(); strings.Count(got, "marks left out") != 2 || !strings.Contains(got, "reason=table") {
		t.Errorf("log %q, want the first, and then the rest in one line", got)
	}
}
