package outage_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/spool"
)

// A test that kills a tap runs it in a process of its own: this binary, told by
// the environment to be one.
const (
	childDir   = "SIPTRACE_TEST_TAP_SPOOL"
	childNATS  = "SIPTRACE_TEST_TAP_NATS"
	childFirst = "SIPTRACE_TEST_TAP_FIRST"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := tapAsChild(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(os.Exit))
}

// tapAsChild offers events for ever, and says how many it has accepted and how
// many of them are on disk.
func tapAsChild(dir string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	reg := prometheus.NewRegistry()
	s, err := spool.Open(dir, spool.Options{}, reg, log)
	if err != nil {
		return err
	}
	c, err := bus.Connect(bus.Options{URL: os.Getenv(childNATS), Name: "tap"}, log)
	if err != nil {
		return err
	}
	p, err := bus.NewPublisher(c, bus.PublisherOptions{
		Agent: "edge", Subsystem: "tap", BufferBytes: 4 << 20, Spool: s, SpoolSync: 20 * time.Millisecond,
	}, reg, log)
	if err != nil {
		return err
	}
	go func() { _ = p.Run(context.Background()) }() // until it is killed
	first, err := strconv.Atoi(os.Getenv(childFirst))
	if err != nil {
		return err
	}
	for next := first; ; {
		next += p.Offer(makeEvents(next, 40))
		families, err := reg.Gather()
		if err != nil {
			return err
		}
		safe := 0
		for _, f := range families {
			switch f.GetName() {
			case "siptrace_tap_spooled_events_total":
				safe = int(f.GetMetric()[0].GetCounter().GetValue())
			}
		}
		fmt.Println(next-first, safe)
		time.Sleep(time.Millisecond) // traffic, not a burst
	}
}

// runChild kills a tap that offers events from first on as soon as it says
// that it is enough, and returns how many it has accepted and spooled.
func runChild(t *testing.T, addr, dir string, first int, enough func(accepted, spooled int) bool) (accepted, spooled int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childNATS+"=nats://"+addr, childFirst+"="+strconv.Itoa(first))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscan(lines.Text(), &accepted, &spooled); err != nil {
			t.Fatalf("tap says %q", lines.Text())
		}
		if !killed && enough(accepted, spooled) {
			_ = cmd.Process.Kill()
			killed = true
		}
	}
	_ = cmd.Wait()
	return accepted, spooled
}

func TestTap_killedWhileNATSIsAwayLosesOnlyWhatWasNotOnDisk(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	const space = 1_000_000 // serials of one run
	var accepted, spooled []int
	for run := range 4 {
		a, s := runChild(t, addr, dir, run*space, func(_, spooled int) bool { return spooled > 4000*(run+1) })
		accepted, spooled = append(accepted, a), append(spooled, s)
	}
	startServer(t, t.TempDir(), addr, bus.StreamConfig{})
	p := startTap(t, addr, dir, tapOptions{})
	eventually(t, "the spool is empty", func() bool {
		return p.metric(t, "spool_drained_events_total") > 0 && p.metric(t, "spool_bytes") == 0
	})
	if got := p.metric(t, "spool_dropped_events_total"); got != 0 {
		t.Errorf("%d events counted as lost", got)
	}
	serials := stored(t, addr)
	runs := make([][]int, len(accepted))
	for _, n := range serials {
		runs[n/space] = append(runs[n/space], n)
	}
	for run, got := range runs {
		wantOnce(t, got, run*space, run*space+len(got)) // the lost ones are the last ones
		if len(got) < spooled[run] {
			t.Errorf("run %d: %d events stored, %d were on disk", run, len(got), spooled[run])
		}
		t.Logf("run %d: accepted %d = %d stored + %d lost in memory", run, accepted[run], len(got), accepted[run]-len(got))
	}
}

func TestTap_killedWhileItDrainsDoublesNothingInTime(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	const all = 30_000
	p := startTap(t, addr, dir, tapOptions{})
	p.offerAll(t, 0, all)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	startServer(t, t.TempDir(), addr, bus.StreamConfig{})
	c := connect(t, "nats://"+addr)
	before := uint64(0)
	for range 3 {
		runChild(t, addr, dir, all, func(accepted, _ int) bool {
			st, err := c.StreamStatus(t.Context())
			if err != nil {
				t.Error(err)
				return true
			}
			return st.Frames > before+50
		})
		st, err := c.StreamStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before = st.Frames
	}
	p = startTap(t, addr, dir, tapOptions{})
	eventually(t, "the spool is empty", func() bool { return p.metric(t, "spool_bytes") == 0 })
	var old []int
	for _, n := range stored(t, addr) {
		if n < all {
			old = append(old, n)
		}
	}
	wantOnce(t, old, 0, all)
}
