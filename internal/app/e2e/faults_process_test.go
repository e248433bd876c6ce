package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestFaults_tapKilled(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, "tap: kill -9, started again", nats, d)
	tr.startWriter()
	tr.begin()
	published := tr.tap.metric(t, "siptrace_tap_published_events_total")
	tr.tap.signal(t, syscall.SIGSTOP) // so that what the kernels hold can be seen
	kernel := queued(t, tr.addr)
	tr.tap.kill(t)
	tr.await("the connection breaks", func(context.Context) bool { return tr.broken() > 0 })
	held := tr.load.count() - int(published)
	tr.startTap()
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.exact(o)
	if o.before > held {
		t.Errorf("%d events are missing, want at most the %d that were not yet in the stream", o.before, held)
	}
	inKernel := kernel / (tr.bytes / tr.load.count())
	tr.report(o, "not yet in the stream were at most %d events; of these about %d in the kernel (%d bytes), the rest in the tap's memory",
		held, inKernel, kernel)
}

// queued is how many bytes the kernel holds that came over TCP to an address and
// were not read, or were written and have not come.
func queued(t *testing.T, addr string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Skipf("what the kernel holds is not to be seen here: %v", err)
	}
	port := fmt.Sprintf(":%04X", netip.MustParseAddrPort(addr).Port())
	sum := 0
	for _, line := range strings.Split(string(text), "\n")[1:] {
		f := strings.Fields(line)
		if len(f) < 5 || f[3] == "0A" { // listening: these are connections, not bytes
			continue
		}
		out, in, _ := strings.Cut(f[4], ":")
		held := "0"
		switch {
		case strings.HasSuffix(f[1], port):
			held = in
		case strings.HasSuffix(f[2], port):
			held = out
		}
		n, err := strconv.ParseInt(held, 16, 64)
		if err != nil {
			t.Fatalf("/proc/net/tcp: %q: %v", line, err)
		}
		sum += int(n)
	}
	return sum
}

func TestFaults_writerKilled(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, "db-writer: kill -9, started again", nats, d)
	victim := tr.startWriter()
	tr.begin()
	victim.kill(t)
	heir := tr.startWriter()
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "%.0f frames that it held came again", heir.metric(t, "siptrace_consumer_redelivered_frames_total"))
}

func TestFaults_writersComeAndGo(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, "db-writers: 1, 4, 1 (SIGTERM)", nats, d)
	first := tr.startWriter()
	tr.begin()
	rest := []*process{tr.startWriter(), tr.startWriter(), tr.startWriter()}
	for _, w := range rest {
		w.ready(t)
	}
	eventually(t, "all four write", func() bool {
		for _, w := range append(rest, first) {
			if written(t, w) == 0 {
				return false
			}
		}
		return true
	})
	share := written(t, first)
	tr.wait(tr.scale.lead)
	first.stop(t)
	rest[0].stop(t)
	rest[1].stop(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	if n := rest[2].metric(t, "siptrace_consumer_redelivered_frames_total"); n > 0 {
		t.Errorf("the writer that stayed was given %v frames that others had taken, want none: they were asked to end", n)
	}
	tr.report(o, "all shared the work (the first had written %.0f when the others had begun); none left anything behind", share)
}
