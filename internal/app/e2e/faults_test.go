package e2e

import (
	"context"
	"fmt"
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
	natsAway time.Duration
	patience time.Duration // until all is stored
}

func faultScale() scale {
	if fullFaults() {
		return scale{
			rate: setting(rateEnv, 10_000), load: time.Duration(setting(secondsEnv, 60)) * time.Second, lead: 10 * time.Second, dbAway: 10 * time.Second, dbFrozen: 20 * time.Second,
			natsAway: time.Minute, patience: 5 * time.Minute,
		}
	}
	return scale{
		rate: 2000, load: 2 * time.Second, lead: 500 * time.Millisecond, dbAway: time.Second, dbFrozen: time.Second,
		natsAway: 5 * time.Second, patience: patience,
	}
}

// A trial is one fault: a tap under load, the stream and a database behind it.
type trial struct {
	*testing.T
	scale scale
	fault string // what is done
	nats  natsBox
	db    *db
	tap   *process
	args  []string // of the tap
	addr  string   // where the tap listens
	*load
	began  time.Time
	back   time.Duration // from the cure until what was sent behind it is stored,
	caught time.Duration // and until all that was sent before is
}

// A natsBox is a NATS server somewhere.
type natsBox interface{ url() string }

// try starts a tap and sees to it that there is a stream. In the short form
// what a worker, or a broken connection, has swallowed comes again after two
// seconds and not after a minute.
func try(t *testing.T, fault string, nats natsBox, d *db, tapArgs ...string) *trial {
	t.Helper()
	tr := &trial{T: t, scale: faultScale(), fault: fault, nats: nats, db: d, addr: freeTCP(t)}
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

// startWriter starts a db-writer as operators do.
func (tr *trial) startWriter() *process {
	tr.Helper()
	return program(tr.T, "db-writer", "--nats", tr.nats.url(), "--store", tr.db.url, "--http", loopback+":0")
}

// begin starts the load. When it returns, all has been going well for the lead.
func (tr *trial) begin() {
	tr.Helper()
	tr.began = time.Now()
	tr.load = startLoad(tr.T, tr.addr, tr.scale.rate)
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
	mark, marked := tr.mark(), time.Now()
	tr.await("what was sent after the fault is stored", func(ctx context.Context) bool {
		if time.Since(marked) > 5*time.Second { // a full buffer may have dropped that one
			mark, marked = tr.mark(), time.Now()
		}
		return tr.stored(ctx, mark)
	})
	tr.back = time.Since(cured)
	js := jetStream(tr.T, tr.nats)
	behind := uint64(0)
	tr.await("what was sent before is settled", func(ctx context.Context) bool {
		c, err := js.Consumer(ctx, bus.StreamName, "db-writer")
		if err != nil {
			return false
		}
		if behind == 0 {
			behind = streamState(ctx, tr.T, js).LastSeq
		}
		return c.CachedInfo().AckFloor.Stream >= behind
	})
	tr.caught = time.Since(cured)
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
	js := jetStream(tr.T, tr.nats)
	tr.await("all of the stream is settled", func(ctx context.Context) bool {
		c, err := js.Consumer(ctx, bus.StreamName, "db-writer")
		if err != nil {
			return false
		}
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
}

// An outcome is what a fault came to, in events.
type outcome struct {
	what           string // what happened to the events
	sent           int
	stream, stored int // different events
	before         int // sent and not in the stream
	after          int // in the stream and not stored
	double         int // rows, or deliveries, too many
	strange        int // stored and never sent
}

// census compares the ids at the sender, in the stream and in the database.
func (tr *trial) census() outcome {
	tr.Helper()
	return tally(tr.ids(), streamed(tr.T, tr.nats), tr.db.ids(tr.T))
}

// tally compares what was sent, what is in the stream and what has arrived.
func tally(sent map[trace.ID]bool, stream, arrived map[trace.ID]int) outcome {
	o := outcome{sent: len(sent), stream: len(stream), stored: len(arrived)}
	for id := range sent {
		if stream[id] == 0 {
			o.before++
		}
	}
	for id := range stream {
		if arrived[id] == 0 {
			o.after++
		}
	}
	for id, n := range arrived {
		o.double += n - 1
		if !sent[id] {
			o.strange++
		}
	}
	return o
}

// exact fails the test unless what is in the stream is stored, each event once.
func (tr *trial) exact(o outcome) {
	tr.Helper()
	if o.after > 0 || o.double > 0 || o.strange > 0 {
		tr.Errorf("%s: of %d events in the stream %d are missing, %d stored more than once, %d stored that were not sent",
			tr.fault, o.stream, o.after, o.double, o.strange)
	}
}

// lossless fails the test unless all that was sent is stored, each event once.
func (tr *trial) lossless(o outcome) {
	tr.Helper()
	tr.exact(o)
	if o.before > 0 {
		tr.Errorf("%s: %d of %d events did not get into the stream", tr.fault, o.before, o.sent)
	}
}

// report adds the outcome to the table.
func (tr *trial) report(o outcome, format string, args ...any) {
	tr.Helper()
	o.what = fmt.Sprintf(format, args...)
	caught := "-"
	if tr.caught > 0 {
		caught = fmt.Sprintf("%.1f", tr.caught.Seconds())
	}
	if tr.caught > tr.back+5*time.Second { // a few frames had to wait for AckWait
		caught = fmt.Sprintf("%.1f, the last %.1f", tr.back.Seconds(), tr.caught.Seconds())
	}
	lost := fmt.Sprint(o.before + o.after)
	if o.before > 0 {
		lost += fmt.Sprintf(" (%d before the stream)", o.before)
	}
	line := strings.Join([]string{tr.fault, o.what, fmt.Sprint(o.sent), fmt.Sprint(o.stored), lost, fmt.Sprint(o.double), caught}, "\t")
	tr.Log(strings.ReplaceAll(line, "\t", " | "))
	path := os.Getenv(tableEnv)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		tr.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, line); err != nil {
		tr.Fatal(err)
	}
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
