package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
)

// What tells this binary to be a NATS server.
const (
	natsDir    = "SIPTRACE_TEST_NATS_DIR"
	natsListen = "SIPTRACE_TEST_NATS_LISTEN"
	natsConfig = "SIPTRACE_TEST_NATS_CONFIG" // a configuration file, which then says all
)

// serveNATS is a NATS server until it is asked to end or killed.
func serveNATS(dir, listen string) int {
	shutdown, err := launchNATS(dir, listen, os.Getenv(natsConfig))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shutdown()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("ready")
	<-ctx.Done()
	return 0
}

func launchNATS(dir, listen, config string) (shutdown func(), err error) {
	if config != "" {
		return memberOfCluster(config)
	}
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: listen, MaxStore: 4 << 30, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return s.Shutdown, nil
}

// A natsChild is a NATS server in a process of its own, which can be killed.
type natsChild struct {
	addr, dir string
	running   *process
}

func startNATSChild(t *testing.T) *natsChild {
	t.Helper()
	n := &natsChild{addr: freeAddr(t), dir: t.TempDir()}
	n.start(t)
	return n
}

func (n *natsChild) url() string { return "nats://" + n.addr }

func (n *natsChild) start(t *testing.T) {
	t.Helper()
	n.running = launch(t, append(environment(t), natsDir+"="+n.dir, natsListen+"="+n.addr), os.Args[0])
	n.running.says(t, "ready")
}

func TestFaults_NATSKilled(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATSChild(t)
	tr := try(t, "NATS: kill -9, started again", nats, d)
	tr.startWriter()
	tr.begin()
	nats.running.kill(t)
	nats.start(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the taps held what they could not publish; every acknowledged frame was there again")
}

func TestFaults_NATSAway(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, fmt.Sprintf("NATS: away %v, the tap has a spool", faultScale().away), nats, d, "--data", t.TempDir())
	tr.startWriter()
	tr.begin()
	nats.stop()
	tr.wait(tr.scale.away)
	spooled := tr.tap.metric(t, "siptrace_tap_spooled_events_total")
	if spooled == 0 {
		t.Error("nothing was spooled: the test proves nothing")
	}
	nats.start(t)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the spool took %.0f events, the memory of the program traced from inside the rest", spooled)
}

func TestFaults_NATSAwayForLongerThanTheBufferLasts(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, fmt.Sprintf("NATS: away %v, buffer of 1 MiB, no spool", faultScale().away), nats, d, "--buffer", "1MiB", "--compress", "none")
	tr.alone = true
	tr.flood()
	tr.startWriter()
	tr.begin()
	nats.stop()
	tr.wait(tr.scale.away)
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
