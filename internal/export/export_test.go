package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

// message is a request whose body has so many bytes.
func message(callID string, body int) []byte {
	return fmt.Appendf(nil, "MESSAGE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK%s\r\n"+
		"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.org>\r\nCall-ID: %s\r\nCSeq: 1 MESSAGE\r\n"+
		"Content-Length: %d\r\n\r\n%s", callID, callID, body, strings.Repeat("x", body))
}

// event is a message with its time and addresses, changed as the test wants.
func event(name string, change ...func(*trace.Event)) trace.Event {
	e := trace.Event{
		Time:      noon,
		Agent:     trace.Agent{ID: 7, Name: "edge-1"},
		Transport: trace.UDP,
		Src:       netip.MustParseAddrPort("192.0.2.1:5060"),
		Dst:       netip.MustParseAddrPort("198.51.100.2:5062"),
		Direction: trace.In,
		Type:      trace.TypeSIP,
		Payload:   message(name, 3),
	}
	for _, c := range change {
		c(&e)
	}
	e.Identify()
	return e
}

func between(src, dst string) func(*trace.Event) {
	return func(e *trace.Event) {
		e.Src, e.Dst = netip.AddrPort{}, netip.AddrPort{}
		if src != "" {
			e.Src = netip.MustParseAddrPort(src)
		}
		if dst != "" {
			e.Dst = netip.MustParseAddrPort(dst)
		}
	}
}

func over(t trace.Transport) func(*trace.Event) { return func(e *trace.Event) { e.Transport = t } }

func body(n int) func(*trace.Event) {
	return func(e *trace.Event) { e.Payload = message("large", n) }
}

// create opens a file that is closed when the test ends.
func create(t testing.TB, s string, o Options) *File {
	t.Helper()
	target, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Create(target, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// write writes events to a new file and returns its name.
func write(t *testing.T, format Format, events ...trace.Event) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "calls."+string(format))
	f := create(t, string(format)+":"+path, Options{})
	if err := f.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want Target
	}{
		{"pcap:calls.pcap", Target{Pcap, "calls.pcap"}},
		{"pcapng:///var/calls.pcapng", Target{Pcapng, "/var/calls.pcapng"}},
		{"hep:-", Target{HEP, "-"}},
		{"text:a:b c?d", Target{Text, "a:b c?d"}},
		{"json://x", Target{JSON, "//x"}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		if err != nil || got != tt.want || !Accepts(tt.in) {
			t.Errorf("Parse(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "pcap", "pcap:", "PCAP:x", "csv:x", "sqlite:x", "hep+tcp://x"} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", bad, got)
		}
	}
	if Accepts("hep+tcp://10.0.0.1") || Accepts("postgres://x") {
		t.Error("a destination passes for a file")
	}
}

func TestFile_isNotReplacedUnlessAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "calls.json")
	if err := os.WriteFile(path, []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(Target{JSON, path}, Options{}); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), path) {
		t.Errorf("Create = %v, want ErrExists with the name", err)
	}
	if got := string(read(t, path)); got != "precious\n" {
		t.Errorf("the file is %q now", got)
	}
	f := create(t, "json:"+path, Options{Overwrite: true})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != 0 {
		t.Errorf("the file still holds %q", got)
	}
	if _, err := Create(Target{JSON, filepath.Join(path, "x")}, Options{}); err == nil {
		t.Error("a file in a file was made")
	}
}

func TestFile_appends(t *testing.T) {
	for _, format := range Formats() {
		t.Run(string(format), func(t *testing.T) {
			one, two := event("one"), event("two")
			path := filepath.Join(t.TempDir(), "calls")
			for _, e := range []trace.Event{one, two} {
				f := create(t, string(format)+":"+path, Options{Append: true})
				if err := f.Write(t.Context(), []trace.Event{e}); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			got := read(t, path)
			switch format {
			case Pcap, Text, JSON, HEP:
				if want := read(t, write(t, format, one, two)); !bytes.Equal(got, want) {
					t.Errorf("appended is not what one go writes:\n%q\n%q", got, want)
				}
			case Pcapng: // a section each
				if n := len(packetsOf(t, path)); n != 2 {
					t.Errorf("%d packets, want 2", n)
				}
			}
		})
	}
}

func TestFile_refusesToAppendToSomethingElse(t *testing.T) {
	for _, format := range []Format{Pcap, Pcapng, HEP} {
		path := filepath.Join(t.TempDir(), "notes.txt")
		const text = "these are my notes of that night"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(Target{format, path}, Options{Append: true}); err == nil {
			t.Errorf("%s appended to a text", format)
		}
		if got := string(read(t, path)); got != text {
			t.Errorf("the notes are %q now", got)
		}
	}
}

// breaking takes so many bytes and then no more.
type breaking struct {
	f    *os.File
	left int
}

var errFull = errors.New("no space left on device")

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) <= b.left {
		b.left -= len(p)
		return b.f.Write(p)
	}
	n, err := b.f.Write(p[:b.left])
	b.left -= n
	return n, errors.Join(err, errFull)
}

func TestFile_isWholeAfterAWriteThatFailed(t *testing.T) {
	for _, format := range Formats() {
		t.Run(string(format), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "calls")
			f := create(t, string(format)+":"+path, Options{})
			one, two := []trace.Event{event("one")}, []trace.Event{event("two")}
			if err := f.Write(t.Context(), one); err != nil {
				t.Fatal(err)
			}
			before := f.Counts()
			f.out = &breaking{f.file, 50}
			if err := f.Write(t.Context(), two); !errors.Is(err, errFull) {
				t.Fatalf("Write = %v, want %v", err, errFull)
			}
			if got := f.Counts(); got != before {
				t.Errorf("counts %+v after a failure, want %+v", got, before)
			}
			f.out = f.file
			if err := f.Write(t.Context(), two); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got, want := read(t, path), read(t, write(t, format, one[0], two[0])); !bytes.Equal(got, want) {
				t.Errorf("the file is\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestFile_leavesOutOfCapturesWhatIsNoSIP(t *testing.T) {
	log := event("x", func(e *trace.Event) { e.Type, e.Payload = trace.TypeLog, []byte("a line") })
	for _, tt := range []struct {
		format          Format
		events, leftOut int
	}{{Pcap, 1, 1}, {Pcapng, 1, 1}, {HEP, 2, 0}, {Text, 2, 0}, {JSON, 2, 0}} {
		f := create(t, string(tt.format)+":-", Options{Stdout: new(bytes.Buffer)})
		if err := f.Write(t.Context(), []trace.Event{event("one"), log}); err != nil {
			t.Fatal(err)
		}
		if got := f.Counts(); got.Events != tt.events || got.LeftOut != tt.leftOut {
			t.Errorf("%s: %+v, want %d written and %d left out", tt.format, got, tt.events, tt.leftOut)
		}
	}
}

func TestFile_rejectsTimesThatTheFormatCannotSay(t *testing.T) {
	old := event("old", func(e *trace.Event) { e.Time = time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC) })
	for _, format := range []Format{Pcap, Pcapng, HEP} {
		var out bytes.Buffer
		f := create(t, string(format)+":-", Options{Stdout: &out})
		err := f.Write(t.Context(), []trace.Event{event("one"), old, event("two")})
		var rejected trace.Rejected
		if !errors.As(err, &rejected) || len(rejected) != 1 || rejected[0].Index != 1 {
			t.Errorf("%s: Write = %v, want event 1 rejected", format, err)
		}
		if f.Counts().Events != 2 || !bytes.Contains(out.Bytes(), []byte("Call-ID: two")) {
			t.Errorf("%s: the others are not written: %+v", format, f.Counts())
		}
	}
}

func TestHEP_keepsEverything(t *testing.T) {
	want := []trace.Event{
		event("full", over(trace.WSS), func(e *trace.Event) {
			e.VLAN, e.CorrelationID, e.Table, e.Rule = 42, []byte("corr"), "lab", "fraud"
			e.TracedUsers, e.Destinations = []string{"alice", "bob"}, []string{"hep+udp://192.0.2.9"}
			e.Flags = trace.NoDuplicate | trace.UsersOnly
			e.Chunks = []byte{0, 3, 0, 0x20, 0, 8, 1, 2}
		}),
		event("six", between("[2001:db8::1]:5061", "[2001:db8::2]:5061"), over(trace.TLS)),
		event("unknown", between("", "")),
		event("large", body(100_000)),
		event("cut", func(e *trace.Event) { e.Flags = trace.Truncated }),
	}
	got, err := new(trace.FrameDecoder).Decode(read(t, write(t, HEP, want...)))
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d events read, %v; want %d", len(got), err, len(want))
	}
	for i := range want {
		if g, w := encoded(t, &got[i]), encoded(t, &want[i]); !bytes.Equal(g, w) || got[i].ID != want[i].ID {
			t.Errorf("event %d is\n%.400q, want\n%.400q", i, g, w)
		}
	}
}

// encoded is everything of an event.
func encoded(t *testing.T, e *trace.Event) []byte {
	t.Helper()
	b, err := trace.AppendEvent(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHEP_countsWhatHasNoRoom(t *testing.T) {
	random := make([]byte, 120_000) // does not compress
	for i, x := 0, uint32(1); i < len(random); i++ {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		random[i] = byte(x)
	}
	f := create(t, "hep:-", Options{Stdout: new(bytes.Buffer)})
	events := []trace.Event{event("large", body(100_000)), event("noise", func(e *trace.Event) { e.Payload = random })}
	if err := f.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if got := f.Counts(); got.Events != 2 || got.Cut != 1 {
		t.Errorf("%+v, want 2 events, of which 1 is cut", got)
	}
}

func samples() []trace.Event {
	return []trace.Event{
		event("one"),
		event("two", between("[2001:db8::1]:5061", "192.0.2.1:5061"), over(trace.TLS), func(e *trace.Event) {
			e.Time = noon.Add(250 * time.Millisecond)
			e.Direction, e.Agent, e.TracedUsers = trace.Out, trace.Agent{ID: 7}, []string{"alice"}
			e.Payload = []byte("SIP/2.0 486 Busy Here\r\nCall-ID: two\r\nCSeq: 1 INVITE\r\nX: \x1b[31mred\xff\ttab\r\n\r\n")
		}),
		event("", between("", ""), func(e *trace.Event) {
			e.Type, e.Transport, e.Payload, e.Agent = trace.TypeLog, trace.TransportUnknown, []byte("no new line at the end"), trace.Agent{}
		}),
		event("cut", func(e *trace.Event) { e.Flags = trace.Truncated }),
	}
}

func TestFile_readsWell(t *testing.T) {
	for _, format := range []Format{Text, JSON} {
		got := read(t, write(t, format, samples()...))
		golden := filepath.Join("testdata", "samples."+string(format))
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := read(t, golden); !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant\n%s", format, got, want)
		}
	}
	for line := range bytes.Lines(read(t, write(t, JSON, samples()...))) {
		if !json.Valid(line) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

func TestFile_doesNotAllocatePerEvent(t *testing.T) {
	events := []trace.Event{event("one"), event("two", between("[2001:db8::1]:5061", "[2001:db8::2]:5061"))}
	for _, tt := range []struct {
		format Format
		most   float64 // per Write
	}{{Pcap, 0}, {HEP, 0}} {
		f := create(t, string(tt.format)+":-", Options{Stdout: nowhere{}})
		got := testing.AllocsPerRun(100, func() {
			if err := f.Write(context.Background(), events); err != nil {
				t.Fatal(err)
			}
		})
		if got > tt.most {
			t.Errorf("%s: %.0f allocations for 2 events, want %.0f", tt.format, got, tt.most)
		}
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkFile_Write(b *testing.B) {
	events := make([]trace.Event, 1000)
	for i := range events {
		events[i] = event(fmt.Sprint(i), body(500))
	}
	for _, format := range Formats() {
		b.Run(string(format), func(b *testing.B) {
			f := create(b, string(format)+":-", Options{Stdout: nowhere{}})
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Write(context.Background(), events); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(events)), "ns/event")
		})
	}
}
