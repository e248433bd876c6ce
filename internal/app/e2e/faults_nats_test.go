package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
)

// What tells this binary to be a NATS server.
const (
	natsDir    = "SIPTRACE_TEST_NATS_DIR"
	natsListen = "SIPTRACE_TEST_NATS_LISTEN"
)

// serveNATS is a NATS server until it is asked to end or killed.
func serveNATS(dir, listen string) int {
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: listen, MaxStore: 4 << 30, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Shutdown()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("ready")
	<-ctx.Done()
	return 0
}

// A natsChild is a NATS server in a process of its own, which can be killed.
type natsChild struct {
	addr, dir string
	running   *process
}

func startNATSChild(t *testing.T) *natsChild {
	t.Helper()
	n := &natsChild{addr: freeTCP(t), dir: t.TempDir()}
	n.start(t)
	return n
}

func (n *natsChild) url() string { return "nats://" + n.addr }

func (n *natsChild) start(t *testing.T) {
	t.Helper()
	n.running = launch(t, append(environment(t), natsDir+"="+n.dir, natsListen+"="+n.addr), os.Args[0])
	eventually(t, "NATS is ready", func() bool { return strings.Contains(n.running.out.String(), "ready") || !n.running.alive() })
}

func (n *natsChild) kill(t *testing.T) {
	t.Helper()
	n.running.signal(t, syscall.SIGKILL)
	n.running.wait(t)
}

func TestFaults_NATSKilled(t *testing.T) {
	d, nats := database(t), startNATSChild(t)
	tr := try(t, "NATS: kill -9, started again", nats, d)
	tr.startWriter()
	tr.begin()
	nats.kill(t)
	nats.start(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the tap held what it could not publish; every acknowledged frame was there again")
}

func TestFaults_NATSAway(t *testing.T) {
	d, nats := database(t), startNATS(t)
	tr := try(t, fmt.Sprintf("NATS: away %v", faultScale().natsAway), nats, d, "--buffer", "2GiB")
	tr.startWriter()
	tr.begin()
	nats.stop()
	tr.wait(tr.scale.natsAway)
	held := tr.tap.metric(t, "siptrace_tap_buffer_bytes")
	nats.start(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the tap's memory held %.0f MB (--buffer 2GiB)", held/1e6)
}

func TestFaults_NATSAwayForLongerThanTheBufferLasts(t *testing.T) {
	d, nats := database(t), startNATS(t)
	tr := try(t, fmt.Sprintf("NATS: away %v, buffer of 1 MiB", faultScale().natsAway), nats, d, "--buffer", "1MiB")
	tr.startWriter()
	tr.begin()
	nats.stop()
	tr.wait(tr.scale.natsAway)
	nats.start(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.exact(o)
	counted := tr.tap.metric(t, "siptrace_tap_events_overflow_total")
	if o.before == 0 {
		t.Error("nothing was dropped: the test proves nothing")
	}
	if counted != float64(o.before) {
		t.Errorf("the tap has counted %v dropped events, %d are missing", counted, o.before)
	}
	tr.report(o, "what the buffer had no room for is lost: siptrace_tap_events_overflow_total says %.0f", counted)
}
