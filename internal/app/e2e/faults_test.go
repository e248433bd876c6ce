package e2e

import (
	"context"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// The faults: something dies, stops, freezes or fills up under a steady load,
// and at the end events are counted by their ids at both ends. SIPTRACE_FAULTS=full
// tries them as hard as docs/reliability.md says; otherwise each takes seconds.
const (
	faultsEnv = "SIPTRACE_FAULTS"
	tableEnv  = "SIPTRACE_FAULTS_TABLE" // a file that gets a line for each fault

	// Of the long form.
	rateEnv    = "SIPTRACE_FAULTS_RATE"    // events a second
	secondsEnv = "SIPTRACE_FAULTS_SECONDS" // how long they come, at least
)

// setting is a number from the environment.
func setting(name string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return usual
}

func fullFaults() bool { return os.Getenv(faultsEnv) == "full" }

// A scale is how hard the faults are tried.
type scale struct {
	rate     int           // events a second
	load     time.Duration // how long they come, at least
	lead     time.Duration // before the fault
	dbAway   time.Duration
	dbFrozen time.Duration
	away     time.Duration // NATS, or a collector
	patience time.Duration // until all is stored
}

func faultScale() scale {
	if fullFaults() {
		return scale{
			rate: setting(rateEnv, 10_000), load: time.Duration(setting(secondsEnv, 60)) * time.Second, lead: 10 * time.Second,
			dbAway: 10 * time.Second, dbFrozen: 20 * time.Second, away: time.Minute, patience: 5 * time.Minute,
		}
	}
	return scale{
		rate: 1000, load: 1500 * time.Millisecond, lead: 300 * time.Millisecond,
		dbAway: time.Second, dbFrozen: time.Second, away: 2 * time.Second, patience: patience,
	}
}

// brief lets trials of the short form, which wait more than they work, run
// beside each other. Those of the long form have the machine to themselves.
func brief(t *testing.T) {
	t.Helper()
	if !fullFaults() {
		t.Parallel()
	}
}

// A trial is one fault: a tap under load, the stream and a database behind it.
type trial struct {
	*testing.T
	scale  scale
	fault  string // what is done
	nats   natsBox
	db     *db
	tap    *process
	args   []string // of the tap
	addr   string   // where the tap listens
	*load           // over HEP
	alone  bool     // all of the load comes over HEP
	inner  *inside  // else half of it comes from a program that is traced from inside
	began  time.Time
	back   time.Duration // from the cure until what was sent behind it is stored,
	caught time.Duration // and until all that was sent before is
}

// A natsBox is a NATS server somewhere.
type natsBox interface{ url() string }

// try starts a tap, without a spool unless the arguments say where, and sees to
// it that there is a stream. In the short form what a worker has swallowed comes
// again after two seconds and not as late as usual.
func try(t *testing.T, fault string, nats natsBox, d *db, tapArgs ...string) *trial {
	t.Helper()
	tr := &trial{T: t, scale: faultScale(), fault: fault, nats: nats, db: d, addr: freeAddr(t)}
	tr.args = append([]string{"--nats", nats.url(), "--in", "hep+tcp://" + tr.addr, "--http", loopback + ":0", "--data", "off"}, tapArgs...)
	tr.startTap()
	js := jetStream(t, nats)
	tr.await("the stream is there", func(ctx context.Context) bool {
		_, err := js.Stream(ctx, bus.StreamName)
		return err == nil
	})
	if fullFaults() || d == nil {
		return tr
	}
	if _, err := js.CreateConsumer(t.Context(), bus.StreamName, jetstream.ConsumerConfig{
		Durable: "db-writer", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
		MaxAckPending: 1024, MaxDeliver: -1, FilterSubject: bus.EventsSubject + ".>",
	}); err != nil {
		t.Fatal(err)
	}
	return tr
}

// flood makes the load one that fills small things in seconds.
func (tr *trial) flood() { tr.scale.rate = max(tr.scale.rate, 2000) }

// startWriter starts a db-writer as operators do.
func (tr *trial) startWriter() *process {
	tr.Helper()
	return tr.startWriterTo(tr.db.url)
}

// startWriterTo starts a db-writer that has the database at another address.
func (tr *trial) startWriterTo(url string) *process {
	tr.Helper()
	return program(tr.T, "db-writer", "--nats", tr.nats.url(), "--store", url, "--http", loopback+":0")
}

// begin starts the load. When it returns, all has been going well for the lead.
func (tr *trial) begin() {
	tr.Helper()
	tr.began = time.Now()
	rate := tr.scale.rate
	if !tr.alone {
		rate /= 2
		tr.inner = startInside(tr.T, tr.nats.url(), rate)
	}
	tr.load = startLoad(tr.T, tr.addr, rate)
	first := tr.mark()
	if tr.db != nil {
		tr.await("the first event is stored", func(ctx context.Context) bool { return tr.stored(ctx, first) })
	}
	tr.wait(tr.scale.lead)
}

func (tr *trial) startTap() {
	tr.Helper()
	tr.tap = program(tr.T, "tap", tr.args...)
	tr.tap.logged(tr.T, "source started")
}

// wait lets the load and the fault go on for a while. It is the fault's
// length, not a guess at how long something takes.
func (tr *trial) wait(d time.Duration) {
	tr.Helper()
	select {
	case <-time.After(d):
	case <-tr.Context().Done():
		tr.Fatal("the test has ended")
	}
}

// await waits until ok, as long as the scale allows.
func (tr *trial) await(what string, ok func(ctx context.Context) bool) {
	tr.Helper()
	deadline := time.Now().Add(tr.scale.patience)
	for {
		ctx, cancel := context.WithTimeout(tr.Context(), 5*time.Second)
		done := ok(ctx)
		cancel()
		if done {
			return
		}
		if time.Now().After(deadline) {
			tr.Fatalf("not within %v: %s", tr.scale.patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stored reports whether an event is in the database. A database that cannot
// be asked has it not.
func (tr *trial) stored(ctx context.Context, id trace.ID) bool {
	ok, err := tr.db.has(ctx, id)
	return err == nil && ok
}

// cure is called when the fault is over. It returns when all that was sent
// before is settled: what the next event meets is a pipeline at work.
func (tr *trial) cure() {
	tr.Helper()
	cured := time.Now()
	tr.db.disconnect()
	spoken := tr.inner.seen()
	mark, marked := tr.mark(), time.Now()
	tr.await("what was sent after the fault is stored", func(ctx context.Context) bool {
		if time.Since(marked) > time.Second { // a full buffer may have dropped that one
			mark, marked = tr.mark(), time.Now()
		}
		return tr.stored(ctx, mark)
	})
	tr.back = time.Since(cured)
	tr.await("what was held before the stream is in it", func(context.Context) bool { return tr.drained(spoken) })
	tr.settled()
	tr.caught = time.Since(cured)
}

// drained reports whether what the tap keeps on disk is in the stream, and so
// many events of the program that is traced from inside.
func (tr *trial) drained(inner uint64) bool {
	tr.Helper()
	const left = "siptrace_tap_spool_frames"
	if tr.tap.metrics(tr.T)[left] != nil && tr.tap.metric(tr.T, left) > 0 {
		return false
	}
	return tr.inner.written() >= inner
}

// settled waits until what is in the stream now is settled by the writers.
func (tr *trial) settled() {
	tr.Helper()
	js := jetStream(tr.T, tr.nats)
	behind := uint64(0)
	tr.await("what is in the stream is settled", func(ctx context.Context) bool {
		if behind == 0 {
			s, err := js.Stream(ctx, bus.StreamName)
			if err != nil {
				return false
			}
			behind = s.CachedInfo().State.LastSeq
		}
		c, err := js.Consumer(ctx, bus.StreamName, "db-writer")
		return err == nil && c.CachedInfo().AckFloor.Stream >= behind
	})
}

// finish ends the load when it has lasted long enough and waits until all of
// it is where it is to be.
func (tr *trial) finish() {
	tr.Helper()
	if left := tr.scale.load - time.Since(tr.began); left > 0 {
		tr.wait(left)
	}
	tr.halt()
	last := tr.last()
	tr.await("the last event is stored", func(ctx context.Context) bool { return tr.stored(ctx, last) })
	tr.settled()
}

// halt ends the load, and returns when no program holds anything of it but the
// tap.
func (tr *trial) halt() {
	tr.Helper()
	tr.load.halt()
	tr.inner.halt()
	tr.await("the program traced from inside has published all", func(context.Context) bool {
		return tr.inner.written() == tr.inner.seen()
	})
}

// ids are all events that were sent. It ends the load.
func (tr *trial) ids() map[trace.ID]bool {
	tr.Helper()
	tr.halt()
	all := maps.Clone(tr.load.ids())
	maps.Copy(all, tr.inner.all())
	return all
}

// jetStream is a server's JetStream, as an administrator sees it.
func jetStream(t *testing.T, n natsBox) jetstream.JetStream {
	t.Helper()
	return (&natsServer{addr: strings.TrimPrefix(n.url(), "nats://")}).stream(t)
}

func streamState(ctx context.Context, t *testing.T, js jetstream.JetStream) jetstream.StreamState {
	t.Helper()
	s, err := js.Stream(ctx, bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State
}
