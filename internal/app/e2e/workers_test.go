package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// startWriter starts a db-writer with small batches, so that there is work to
// share and something under way when it ends.
func startWriter(t *testing.T, nats *natsServer, d *db) *process {
	t.Helper()
	return program(t, "db-writer", "--nats", nats.url(), "--store", d.url, "--batch", "200", "--linger", "20ms", "--http", loopback+":0")
}

// stream is the server's JetStream, as an administrator sees it.
func (n *natsServer) stream(t *testing.T) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(n.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// worked waits until the workers have taken, and settled, all of the stream.
func worked(t *testing.T, server *natsServer) {
	t.Helper()
	js := server.stream(t)
	eventually(t, "all of the stream is settled", func() bool {
		c, err := js.Consumer(t.Context(), bus.StreamName, "db-writer")
		if err != nil {
			t.Fatal(err)
		}
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
}

// shortAckWait makes the durable consumer as an administrator may: what a dead
// worker held comes again after a second and not after a minute.
func shortAckWait(t *testing.T, server *natsServer) {
	t.Helper()
	js := server.stream(t)
	eventually(t, "the stream is there", func() bool {
		_, err := js.Stream(t.Context(), bus.StreamName)
		return err == nil
	})
	if _, err := js.CreateConsumer(t.Context(), bus.StreamName, jetstream.ConsumerConfig{
		Durable: "db-writer", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Second,
		MaxAckPending: 64, MaxDeliver: -1, FilterSubject: bus.EventsSubject + ".>",
	}); err != nil {
		t.Fatal(err)
	}
}

// traffic is a stream of messages that goes to a tap, over TCP, which loses none, while the
// test does other things.
type traffic struct {
	*sender
	tap       *process
	stop, end chan struct{}
}

func startTraffic(t *testing.T, nats *natsServer) *traffic {
	t.Helper()
	addr := freeAddr(t)
	f := &traffic{stop: make(chan struct{}), end: make(chan struct{})}
	f.tap = program(t, "tap", "--nats", nats.url(), "--in", "hep+tcp://"+addr, "--http", loopback+":0")
	f.tap.ready(t)
	f.sender = send(t, "tcp", addr)
	tick := time.NewTicker(10 * time.Millisecond) // 10,000 a second: more than a test has to wait for
	go func() {
		defer close(f.end)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
				f.invites(100)
			}
		}
	}()
	t.Cleanup(f.halt)
	return f
}

// halt ends the traffic. The sender is the test's again.
func (f *traffic) halt() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	<-f.end
}

func written(t *testing.T, p *process) float64 {
	t.Helper()
	return p.metric(t, "siptrace_db_writer_rows_total")
}

func TestWriters_shareTheWorkOfOneDurable(t *testing.T) {
	d, nats := database(t), startNATS(t)
	first, second := startWriter(t, nats, d), startWriter(t, nats, d)
	first.ready(t)
	second.ready(t)
	f := startTraffic(t, nats)
	eventually(t, "both write", func() bool { return written(t, first) > 0 && written(t, second) > 0 })
	f.halt()
	f.once(d)
	var a, b float64
	eventually(t, "the writers have counted all", func() bool {
		a, b = written(t, first), written(t, second)
		return a+b >= float64(len(f.sent))
	})
	if a+b != float64(len(f.sent)) {
		t.Errorf("the writers wrote %v and %v rows, want %d together", a, b, len(f.sent))
	}
	for _, p := range []*process{f.tap, first, second} {
		p.stop(t)
	}
}

func TestWriters_oneIsKilledWithItsHandsFullAndNothingIsMissingOrTwice(t *testing.T) {
	d, nats := database(t), startNATS(t)
	f := startTraffic(t, nats)
	shortAckWait(t, nats)
	victim, heir := startWriter(t, nats, d), startWriter(t, nats, d)
	eventually(t, "both write", func() bool { return written(t, victim) > 0 && written(t, heir) > 0 })

	// With the table locked every batch is stuck half-way to the database.
	lock := newDB(t, d.url)
	tx, err := lock.connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE sip_trace IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both writers are stuck", func() bool {
		stuck := 0
		if err := d.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&stuck); err != nil {
			t.Fatal(err)
		}
		return stuck >= 3 // of two connections each
	})
	victim.signal(t, syscall.SIGKILL)
	victim.wait(t)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}

	f.halt()
	f.once(d)
	if n := heir.metric(t, "siptrace_consumer_redelivered_frames_total"); n == 0 {
		t.Error("the heir was given nothing that the victim had taken: the test proves nothing")
	}
	f.tap.stop(t)
	heir.stop(t)
}

func TestPipeline_losesNothingWhileNATSRestarts(t *testing.T) {
	d, nats := database(t), startNATS(t)
	writer := startWriter(t, nats, d)
	f := startTraffic(t, nats)
	for range 2 {
		before := d.count(t)
		eventually(t, "rows are stored", func() bool { return d.count(t) > before })
		nats.stop()
		eventually(t, "the tap holds what it cannot publish", func() bool {
			return f.tap.metric(t, "siptrace_tap_buffer_bytes") > 50_000
		})
		nats.start(t)
	}
	f.halt()
	f.once(d)
	if lost := f.tap.metric(t, "siptrace_tap_publish_dropped_events_total"); lost > 0 {
		t.Errorf("the tap has dropped %v events", lost)
	}
	f.tap.stop(t)
	writer.stop(t)
}

func TestForwarder_fillsACollectorThatWasAwayAndLetsNobodyWaitForIt(t *testing.T) {
	nats, there := startNATS(t), collectTCP(t)
	away := freeAddr(t)
	forwarder := program(t, "hep-forwarder", "--nats", nats.url(), "--start", "all", "--http", loopback+":0",
		"--to", "hep+tcp://"+there.addr(), "--to", "hep+tcp://"+away)
	addr := freeAddr(t)
	tap := startTap(t, nats.url(), "edge", addr, t.TempDir())
	tap.ready(t)
	s := send(t, "udp", addr)
	s.invites(100)
	eventually(t, "the collector that is there has all", func() bool { return len(there.received(t)) >= 100 })
	forwarder.waitsFor(t, "destinations: ", away)

	back := collectTCPAt(t, away)
	eventually(t, "the collector that was away has all", func() bool { return len(back.received(t)) >= 100 })
	forwarder.ready(t)
	same(t, "the collector that was away", messagesOf(back.received(t)), messagesOf(there.received(t)))
	tap.stop(t)
	forwarder.stop(t)
}

func TestWriter_handsOverWhatItHoldsWhenAskedToStop(t *testing.T) {
	d, nats := database(t), startNATS(t)
	f := startTraffic(t, nats)
	first := startWriter(t, nats, d)
	eventually(t, "it writes", func() bool { return d.count(t) > 0 })
	first.stop(t)
	f.halt()
	if d.count(t) == len(f.sent) {
		t.Fatal("all was stored before the writer was stopped: the test proves nothing")
	}
	second := startWriter(t, nats, d)
	f.once(d)
	if n := second.metric(t, "siptrace_consumer_redelivered_frames_total"); n > 0 {
		t.Errorf("the next writer was given %v frames that the first had taken", n)
	}
	f.tap.stop(t)
	second.stop(t)
}
