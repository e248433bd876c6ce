package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/capture"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestExport_andImportAgainMakesTheSameTable(t *testing.T) {
	eachDatabase(t, func(t *testing.T, db kindOfDatabase) {
		b := newBed(t)
		b.publish(t, traffic(2000)...)
		b.work(t, db.url, "db-writer")
		want := rowsOf(t, db.url, "sip_trace")
		path := filepath.Join(t.TempDir(), "backup.hep")
		code, _, said := run(t, "", "export", "--store", db.url, "--to", "hep:"+path)
		if code != 0 {
			t.Fatal(said)
		}
		contains(t, said, "exported 2,000 events")

		other := newBed(t)
		db.wipe(t)
		for range 2 { // the second time changes nothing
			_, said = other.must(t, "import", path)
			contains(t, said, "imported ")
			other.work(t, db.url, "db-writer")
			sameRows(t, rowsOf(t, db.url, "sip_trace"), want)
		}
	})
}

// reread reads a capture file as a tap does.
func reread(t *testing.T, path string) []trace.Event {
	t.Helper()
	src, err := capture.OpenPcap(path, capture.PcapOptions{}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var events []trace.Event
	err = src.Run(t.Context(), trace.SinkFunc(func(_ context.Context, some []trace.Event) error {
		for i := range some {
			events = append(events, some[i].Clone())
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestExport_capturesAreReadBackAsTheyWere(t *testing.T) {
	addr := func(src, dst string) func(*trace.Event) {
		return func(e *trace.Event) {
			e.Src, e.Dst = netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		}
	}
	large := func(n int) func(*trace.Event) {
		return func(e *trace.Event) { e.Payload = append(e.Payload, bytes.Repeat([]byte("x"), n)...) }
	}
	want := []trace.Event{
		captured("a", "INVITE", 0),
		captured("b", "INVITE", time.Microsecond, addr("[2001:db8::1]:5060", "[2001:db8::2]:5070")),
		captured("c", "INVITE", 2*time.Microsecond, func(e *trace.Event) { e.Transport = trace.TLS }),
		captured("d", "MESSAGE", 3*time.Microsecond, large(60_000)),
		captured("e", "INVITE", time.Second, func(e *trace.Event) { e.Src = netip.AddrPort{} }),
		captured("f", "MESSAGE", 2*time.Second, large(90_000)),
	}
	b := newBed(t)
	b.publish(t, want...)
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	b.work(t, url, "db-writer")
	want[4].Src = netip.MustParseAddrPort("0.0.0.0:0")
	want[5].Payload = want[5].Payload[:65507]
	for _, from := range [][]string{{"replay", "--nats", b.url}, {"export", "--store", url}} {
		for _, format := range []string{"pcap", "pcapng"} {
			t.Run(from[0]+" "+format, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "x")
				code, _, said := run(t, "", append(from, "--to", format+":"+path)...)
				if code != 0 {
					t.Fatal(said)
				}
				contains(t, said, "1 message cut")
				got := reread(t, path)
				if len(got) != len(want) {
					t.Fatalf("%d messages read back, want %d", len(got), len(want))
				}
				for i := range want {
					g, w := &got[i], &want[i]
					if !g.Time.Equal(w.Time) || g.Src != w.Src || g.Dst != w.Dst || !bytes.Equal(g.Payload, w.Payload) {
						t.Errorf("message %d is %v %v to %v, %d bytes; want %v %v to %v, %d bytes",
							i, g.Time, g.Src, g.Dst, len(g.Payload), w.Time, w.Src, w.Dst, len(w.Payload))
					}
				}
			})
		}
	}
}

func TestExport_selectsAndCounts(t *testing.T) {
	b := newBed(t)
	b.publish(t, captured("a", "INVITE", 0), captured("b", "BYE", time.Minute), captured("c", "INVITE", 2*time.Minute))
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	b.work(t, url, "db-writer")
	for _, tt := range []struct {
		flags string
		want  []string
	}{
		{"", []string{"a", "b", "c"}},
		{"--method BYE", []string{"b"}},
		{"--call-id c", []string{"c"}},
		{"--limit 2", []string{"b", "c"}},
		{"--from " + start.Add(time.Minute).Format(time.RFC3339Nano), []string{"b", "c"}},
	} {
		code, out, said := run(t, "", append([]string{"export", "--store", url, "--to", "json:-"}, strings.Fields(tt.flags)...)...)
		if got := callIDs(t, out); code != 0 || !slices.Equal(got, tt.want) {
			t.Errorf("export %s: exit %d, calls %v, want %v; said %s", tt.flags, code, got, tt.want, said)
		}
	}
	if code, _, said := run(t, "", "export", "--store", url, "--to", "json:-", "--call-id", "nobody"); code != 1 || !strings.Contains(said, "no messages") {
		t.Errorf("nothing found: exit %d, said %s", code, said)
	}
	file := filepath.Join(t.TempDir(), "none.pcap")
	for range 2 { // the first leaves none behind
		if code, _, said := run(t, "", "export", "--store", url, "--to", "pcap:"+file, "--call-id", "nobody"); code != 1 || !strings.Contains(said, "no messages") {
			t.Errorf("nothing found for a file: exit %d, said %s", code, said)
		}
	}
	if code, out, _ := run(t, "", "export", "--store", url, "--dry-run"); code != 0 || !strings.Contains(out, "selected  3 events") || !strings.Contains(out, "BYE") {
		t.Errorf("dry run: exit %d\n%s", code, out)
	}
}

func TestExport_toACollectorAndToAnotherDatabase(t *testing.T) {
	b := newBed(t)
	events := make([]trace.Event, 1200)
	for i := range events {
		events[i] = captured(fmt.Sprintf("call-%d", i), "INVITE", time.Duration(i)*time.Millisecond)
	}
	b.publish(t, events...)
	url := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	b.work(t, url, "db-writer")
	c := newCollector(t, nil)
	if code, _, said := run(t, "", "export", "--store", url, "--to", c.url()); code != 0 {
		t.Fatal(said)
	}
	await(t, "all arrives", func() bool { return len(c.got()) == len(events) })
	if !slices.Equal(c.got(), payloads(events)) {
		t.Error("the messages are not in order of time")
	}
	other := "sqlite:" + filepath.Join(t.TempDir(), "y.db")
	code, out, said := run(t, "", "export", "--store", url, "--to", other, "--json")
	var v outcome
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || v.Rows == nil || *v.Rows != len(events) {
		t.Errorf("exit %d, %v, said %s%s", code, err, out, said)
	}
	sameRows(t, rowsOf(t, other, "sip_trace"), rowsOf(t, url, "sip_trace"))
}

func TestExport_wrongUse(t *testing.T) {
	for _, args := range []string{"", "--to nonsense", "--to json:- --json", "--to json:x --from 25:00", "--to json:x --store mysql://x", "--to json:x --addr pbx"} {
		if code, _, said := run(t, "", append([]string{"export"}, strings.Fields(args)...)...); code != 2 {
			t.Errorf("export %s: exit %d, want 2; said %s", args, code, said)
		}
	}
}

// heps encodes packets as strangers send them.
func heps(t *testing.T, change ...func(*hep.Packet)) []byte {
	t.Helper()
	var b []byte
	for i, c := range change {
		p := hep.Packet{Version: 3, Payload: []byte(fmt.Sprintf("OPTIONS sip:x SIP/2.0\r\nCall-ID: hep-%d\r\nCSeq: 1 OPTIONS\r\n\r\n", i))}
		p.Src, p.Dst, p.SrcPort, p.DstPort, p.Protocol, p.Type = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 5060, 5060, 17, 1
		p.Set(hep.FieldProtocol | hep.FieldSrcPort | hep.FieldDstPort | hep.FieldType)
		if err := p.SetTime(start); err != nil {
			t.Fatal(err)
		}
		c(&p)
		var err error
		if b, err = p.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestImport_readsTheHEPOfOthers(t *testing.T) {
	file := heps(t,
		func(*hep.Packet) {},
		func(p *hep.Packet) { p.CaptureID, p.Node = 9, []byte("sbc"); p.Set(hep.FieldCaptureID) },
		func(p *hep.Packet) { p.Payload = []byte{} },
		func(p *hep.Packet) { *p = hep.Packet{Version: 3, Type: 1, Payload: p.Payload}; p.Set(hep.FieldType) }, // no time
	)
	file = append(file, "HEP3\x00\x09\x00\x00\x00"...) // half a chunk
	file = append(file, '\r', '\n')
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	_, said := b.must(t, "import", path, "--agent-id", "5", "--agent-name", "here", "--table", "lab", "--no-duplicate")
	contains(t, said, "imported 2 events", "1 packet left out: no HEP3 that can be read", "1 packet left out: nothing in it", "1 packet left out: no time")
	out, _ := b.must(t, "replay", "--to", "json:-")
	var got []string
	for line := range strings.Lines(out) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(v["callid"], " ", v["node"], " ", v["agent_id"], " ", v["table"], " ", v["time_stamp"]))
	}
	at := start.Format("2006-01-02T15:04:05.000000Z")
	if want := []string{"hep-0 here 5 lab " + at, "hep-1 sbc 9 lab " + at}; !slices.Equal(got, want) {
		t.Errorf("imported %q, want %q", got, want)
	}
	c := newCollector(t, nil)
	_, said = b.must(t, "replay", "--to", c.url())
	contains(t, said, "2 events left out: a rule keeps them from such a target")
}

func TestImport_endsWhereAFileIsNoHEP(t *testing.T) {
	b := newBed(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, append(heps(t, func(*hep.Packet) {}), "garbage that is no HEP"...), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, said := b.ctl(t, "import", path)
	if code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	contains(t, said, path+", at byte ", "1 event published before that, and the same command again does no harm")
}

func TestImport_isTheSameAsAnotherTime(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	pcap := filepath.Join(dir, "x.pcap")
	events := []trace.Event{captured("a", "INVITE", 0), captured("b", "INVITE", time.Millisecond)}
	b.publish(t, events...)
	b.must(t, "replay", "--to", "pcap:"+pcap)
	other := newBed(t)
	url := "sqlite:" + filepath.Join(dir, "x.db")
	for range 2 {
		_, said := other.must(t, "import", pcap, "--agent-name", "edge-1")
		contains(t, said, "imported 2 events")
		other.work(t, url, "db-writer")
	}
	rows := rowsOf(t, url, "sip_trace")
	if len(rows) != 2 || rows[0].EventID != events[0].ID || rows[1].EventID != events[1].ID {
		t.Errorf("%d rows %+v, want the two events with their ids", len(rows), rows)
	}
	if n := other.lastFrame(t); n != 1 {
		t.Errorf("%d frames in the stream, want 1: the second is a duplicate", n)
	}
}

func TestImport_dryRunPublishesNothing(t *testing.T) {
	b := newBed(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, heps(t, func(*hep.Packet) {}, func(*hep.Packet) {}), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := b.must(t, "import", "--dry-run", path, path)
	contains(t, out, "found     4 events", "OPTIONS  4")
	if n := b.lastFrame(t); n != 0 {
		t.Errorf("%d frames in the stream, want none", n)
	}
}

func TestImport_readsStandardInput(t *testing.T) {
	b := newBed(t)
	hepInput := string(heps(t, func(*hep.Packet) {}))
	var out, errs bytes.Buffer
	if code := Run(t.Context(), []string{"import", "-", "--format", "hep", "--nats", b.url}, strings.NewReader(hepInput), &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	contains(t, errs.String(), "imported 1 event")

	path := filepath.Join(t.TempDir(), "x.pcap")
	b.must(t, "replay", "--to", "pcap:"+path)
	in, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A capture on standard input is read from the process's own.
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestImport_asAProcess$")
	cmd.Env = append(os.Environ(), processArgs+"=import - --nats "+b.url)
	cmd.Stdin = bytes.NewReader(in)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	contains(t, string(said), "imported 1 event")
}

// processArgs makes the test below be ctl.
const processArgs = "SIPTRACE_TEST_CTL_ARGS"

func TestImport_asAProcess(t *testing.T) {
	args, ok := os.LookupEnv(processArgs)
	if !ok {
		return // TestImport_readsStandardInput runs it as a process
	}
	os.Exit(Main(strings.Fields(args), os.Stdin, os.Stdout, os.Stderr))
}

func TestImport_saysWhatIsWrong(t *testing.T) {
	b := newBed(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, said string }{
		{path, "neither pcap nor pcapng"},
		{"/nonexistent/file", "no such file"},
		{"", "expected \"<file> ...\""},
	} {
		code, _, said := b.ctl(t, append([]string{"import"}, strings.Fields(tt.args)...)...)
		if code == 0 || !strings.Contains(said, tt.said) {
			t.Errorf("import %s: exit %d, said %s", tt.args, code, said)
		}
	}
	js := jetStream(t, b)
	if err := js.DeleteStream(t.Context(), "SIPTRACE"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, heps(t, func(*hep.Packet) {}), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, said := b.ctl(t, "import", path); code != 1 || !strings.Contains(said, "has a tap or db-writer been started") {
		t.Errorf("no stream: exit %d, said %s", code, said)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Error("the file is gone")
	}
}
