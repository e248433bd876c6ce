package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed-452fa805/siptrace/internal/testport"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

var (
	calls = flag.Int("calls", 200, "calls that SIPp makes through the proxy")
	rate  = flag.Int("rate", 80, "calls a second")
	ratio = flag.Int("ratio", 0, "so many calls without a tracer, and with a dead sink, to compare call set-up times")
)

// TestMain sets sipgo's process-wide variables before any test uses it.
func TestMain(m *testing.M) {
	setUp(slog.New(slog.DiscardHandler))
	sipgotap.New(sipgotap.Options{}).Install()()
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what should happen at once.
const patience = 40 * time.Second

// needSIPp ends the test where SIPp is not installed.
func needSIPp(t *testing.T) string {
	t.Helper()
	binary, err := exec.LookPath("sipp")
	switch {
	case err == nil:
	case os.Getenv("SIPTRACE_TEST_KAMAILIO") == "require":
		t.Fatal("sipp is not installed")
	default:
		t.Skip("sipp is not installed")
	}
	return binary
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// freePort is a port on loopback that is free for UDP and TCP.
func freePort(t *testing.T) netip.AddrPort {
	return netip.MustParseAddrPort(testport.Addr(t, 19_000, 1000))
}

// bound reports whether somebody has a UDP socket at an address. Where the system
// tells, it does not try to have one there itself: who wants it at that moment
// would not get it.
func bound(at netip.AddrPort) bool {
	table, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		c, err := net.ListenPacket("udp", at.String())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}
	ip := at.Addr().As4()
	return strings.Contains(string(table), fmt.Sprintf(": %08X:%04X ", binary.NativeEndian.Uint32(ip[:]), at.Port()))
}

// start starts a proxy. What it returns ends it and gives its report.
func start(t *testing.T, o options) (stop func() report) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- run(ctx, o, &out, slog.New(slog.DiscardHandler)) }()
	end := sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = end() })
	eventually(t, "the proxy listens", func() bool {
		c, err := net.Dial("tcp", o.listen)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return func() report {
		t.Helper()
		if err := end(); err != nil {
			t.Errorf("proxy: %v", err)
		}
		var r report
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatalf("proxy printed %q: %v", out.String(), err)
		}
		return r
	}
}

// collect gathers what is sent by HEP over UDP to the address it returns.
func collect(t *testing.T) (url string, events func() []trace.Event) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	var got []trace.Event
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, hep.MaxSize)
		for {
			n, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return // the deadline
			}
			var d trace.FrameDecoder
			events, err := d.Decode(b[:n])
			if err != nil || len(events) != 1 {
				t.Errorf("collector got %d events in a packet: %v", len(events), err)
				continue
			}
			got = append(got, events[0].Clone())
		}
	}()
	end := sync.OnceFunc(func() {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // what is in the socket is still read
		<-done
		_ = c.Close()
	})
	t.Cleanup(end)
	return "hep+udp://" + c.LocalAddr().String(), func() []trace.Event {
		end()
		return got
	}
}

// sipp is a running SIPp.
type sipp struct {
	cmd *exec.Cmd
	dir string
	out bytes.Buffer
}

// startSIPp starts SIPp with a scenario of testdata.
func startSIPp(t *testing.T, binary, scenario string, at netip.AddrPort, args ...string) *sipp {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", scenario))
	if err != nil {
		t.Fatal(err)
	}
	host := at.Addr().String()
	s := &sipp{dir: t.TempDir()}
	s.cmd = exec.CommandContext(t.Context(), binary, append([]string{
		"-sf", path, "-i", host, "-p", fmt.Sprint(at.Port()), "-ci", host, "-nostdin", "-nd", "-buff_size", "4194304", "-m", fmt.Sprint(*calls),
		"-trace_counts", "-trace_stat", "-fd", "1h", "-timeout", fmt.Sprint(60 + *calls / *rate * 2), "-timeout_error",
	}, args...)...)
	s.cmd.Env = append(os.Environ(), "TERM=dumb")
	s.cmd.Dir = s.dir
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
	})
	eventually(t, "sipp listens", func() bool { return bound(at) })
	return s
}

// wait waits until SIPp has done what it was told.
func (s *sipp) wait(t *testing.T) {
	t.Helper()
	if err := s.cmd.Wait(); err != nil {
		text := s.out.String()
		t.Fatalf("sipp: %v\n%s", err, text[max(0, len(text)-4000):])
	}
}

// table reads a file of SIPp's, of which the first line are names.
func (s *sipp) table(t *testing.T, pattern string) (names []string, rows [][]string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d files %s, %v; want 1", len(found), pattern, err)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(strings.TrimSpace(line), ";")
		if names == nil {
			names = fields
			continue
		}
		rows = append(rows, fields)
	}
	return names, rows
}

// last is the last row of a table, by name.
func (s *sipp) last(t *testing.T, pattern string) map[string]int {
	t.Helper()
	names, rows := s.table(t, pattern)
	if len(rows) == 0 {
		t.Fatalf("%s has no rows", pattern)
	}
	values := make(map[string]int)
	for i, name := range names {
		if i < len(rows[len(rows)-1]) {
			if n, err := strconv.Atoi(rows[len(rows)-1][i]); err == nil {
				values[name] = n
			}
		}
	}
	return values
}

// counts is how often SIPp has sent and received the message of each step of
// its scenario, retransmissions included: "0_INVITE" and so on.
func (s *sipp) counts(t *testing.T) map[string]int {
	t.Helper()
	sum := make(map[string]int)
	for name, n := range s.last(t, "*_counts.csv") {
		for _, what := range []string{"_Sent", "_Recv", "_Retrans"} {
			if step, ok := strings.CutSuffix(name, what); ok && !strings.HasSuffix(step, "_Pause") {
				sum[step] += n
			}
		}
	}
	return sum
}

// astray is how many messages SIPp has received when it did not expect them: a
// BYE before the ACK, or anything after the end of the call.
func (s *sipp) astray(t *testing.T) int {
	t.Helper()
	stat := s.last(t, "*_.csv")
	n := stat["OutOfCallMsgs(C)"] + stat["DeadCallMsgs(C)"]
	for name, unexpected := range s.last(t, "*_counts.csv") {
		if strings.HasSuffix(name, "_Unexp") {
			n += unexpected
		}
	}
	return n
}

// what names a message as the counters do.
func what(e *trace.Event) string {
	var m sipmsg.Message
	sipmsg.Scan(&m, e.Payload)
	if m.Request {
		return fmt.Sprintf("%v %s", e.Direction, m.Method.Of(e.Payload))
	}
	return fmt.Sprintf("%v %d %s", e.Direction, m.Status, m.EventMethod(e.Payload))
}

// tally counts events by what they are, all and the different ones.
func tally(events []trace.Event) (all, different map[string]int) {
	all, different = make(map[string]int), make(map[string]int)
	seen := make(map[string]bool)
	for i := range events {
		e := &events[i]
		name := what(e)
		all[name]++
		if key := fmt.Sprint(e.Direction, e.Src, e.Dst) + string(e.Payload); !seen[key] {
			seen[key] = true
			different[name]++
		}
	}
	return all, different
}

// with are the events from or to an address.
func with(events []trace.Event, peer netip.AddrPort) []trace.Event {
	return slices.Collect(func(yield func(trace.Event) bool) {
		for _, e := range events {
			if (e.Src == peer || e.Dst == peer) && !yield(e) {
				return
			}
		}
	})
}

func TestProxy_everyMessageIsTracedOnce(t *testing.T) {
	binary := needSIPp(t)
	proxy, caller, callee := freePort(t), freePort(t), freePort(t)
	url, events := collect(t)
	stop := start(t, options{listen: proxy.String(), to: callee.String(), hep: url})
	uas := startSIPp(t, binary, "uas.xml", callee, "-d", "20")
	uac := startSIPp(t, binary, "uac.xml", caller, "-r", fmt.Sprint(*rate), proxy.String())
	uac.wait(t)
	uas.wait(t)
	r := stop()
	got := events()

	if r.Tap.Seen != r.Tap.Written || r.Tap.Written != uint64(len(got)) || r.Tap.Dropped != 0 {
		t.Errorf("seen %d, written %d, dropped %d, collected %d; want all of them", r.Tap.Seen, r.Tap.Written, r.Tap.Dropped, len(got))
	}
	for _, e := range got {
		local, far := e.Dst, e.Src
		if e.Direction == trace.Out {
			local, far = e.Src, e.Dst
		}
		if local != proxy || far != caller && far != callee || e.Transport != trace.UDP || e.Agent.Name != "sipgo-proxy" {
			t.Fatalf("%v %v %v → %v by %q", e.Direction, e.Transport, e.Src, e.Dst, e.Agent.Name)
		}
	}
	t.Run("as the caller counts", func(t *testing.T) {
		all, _ := tally(with(got, caller))
		equalCounts(t, all, uac, map[string]string{
			"in INVITE": "0_INVITE", "out 100 INVITE": "1_100", "out 180 INVITE": "2_180", "out 200 INVITE": "3_200",
			"in ACK": "4_ACK", "in BYE": "6_BYE", "out 200 BYE": "7_200",
		})
	})
	t.Run("as the callee counts", func(t *testing.T) {
		all, _ := tally(with(got, callee))
		equalCounts(t, all, uas, map[string]string{
			"out INVITE": "0_INVITE", "in 180 INVITE": "1_180", "in 200 INVITE": "3_200",
			"out ACK": "4_ACK", "out BYE": "5_BYE", "in 200 BYE": "6_200",
		})
	})
	t.Run("as the proxy counts", func(t *testing.T) {
		all, different := tally(got)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			counted := int(r.Messages[name]) // what sipgo repeats, or does not pass on twice, is not counted
			t.Logf("%-16s %6d traced, %6d different, %6d counted", name, all[name], different[name], counted)
			least := different[name]
			if name == "in 180 INVITE" {
				least = different["out 180 INVITE"] // sipgo drops one that a 200 has overtaken
			}
			if counted < least || counted > all[name] {
				t.Errorf("%s: counted %d, want %d, or up to %d with retransmissions", name, counted, least, all[name])
			}
		}
		for name := range r.Messages {
			if all[name] == 0 {
				t.Errorf("%s: counted %d, traced none", name, r.Messages[name])
			}
		}
	})
}

// equalCounts compares what was traced with the steps of a scenario. What came
// unexpected SIPp counts to no step.
func equalCounts(t *testing.T, traced map[string]int, s *sipp, steps map[string]string) {
	t.Helper()
	counts, more := s.counts(t), 0
	for _, name := range slices.Sorted(maps.Keys(traced)) {
		step, ok := steps[name]
		if !ok {
			t.Errorf("%s: %d traced, and no step of the scenario", name, traced[name])
			continue
		}
		t.Logf("%-16s %6d traced, %6d counted", name, traced[name], counts[step])
		if traced[name] < counts[step] {
			t.Errorf("%s: %d traced, SIPp counts %d", name, traced[name], counts[step])
		}
		more += traced[name] - counts[step]
	}
	if astray := s.astray(t); more != astray {
		t.Errorf("%d more traced than counted, and SIPp has %d that it did not expect", more, astray)
	}
	if len(traced) != len(steps) {
		t.Errorf("%d kinds of messages traced, want %d", len(traced), len(steps))
	}
}
