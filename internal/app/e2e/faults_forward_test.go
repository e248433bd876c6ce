package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// startForwarder starts a hep-forwarder for collectors.
func (tr *trial) startForwarder(collectors ...*audience) *process {
	tr.Helper()
	args := []string{"--nats", tr.nats.url(), "--start", "all", "--http", loopback + ":0"}
	for _, a := range collectors {
		args = append(args, "--to", "hep+tcp://"+a.addr)
	}
	return program(tr.T, "hep-forwarder", args...)
}

// durables are the durable consumers of the stream, once there are n.
func (tr *trial) durables(js jetstream.JetStream, n int) []*jetstream.ConsumerInfo {
	tr.Helper()
	var all []*jetstream.ConsumerInfo
	tr.await(fmt.Sprintf("%d consumers are there", n), func(ctx context.Context) bool {
		s, err := js.Stream(ctx, bus.StreamName)
		if err != nil {
			return false
		}
		all = all[:0]
		list := s.ListConsumers(ctx)
		for info := range list.Info() {
			all = append(all, info)
		}
		return list.Err() == nil && len(all) == n
	})
	return all
}

// impatient lets the consumer of a forwarder have an AckWait of two seconds in
// the short form: what a dead one held comes again after that.
func (tr *trial) impatient(a *audience) {
	tr.Helper()
	if fullFaults() {
		return
	}
	js := jetStream(tr.T, tr.nats)
	f := tr.startForwarder(a)
	all := tr.durables(js, 1)
	f.stop(tr.T)
	all[0].Config.AckWait = 2 * time.Second
	if _, err := js.UpdateConsumer(tr.Context(), bus.StreamName, all[0].Config); err != nil {
		tr.Fatal(err)
	}
}

// prompt fails the test unless a collector gets what is sent now at once.
func (tr *trial) prompt(a *audience) {
	tr.Helper()
	const bound = 10 * time.Second // on a busy machine; usually it takes milliseconds
	mark, marked := tr.mark(), time.Now()
	tr.await("the other collector gets what is sent now", func(context.Context) bool { return a.has(mark) })
	if late := time.Since(marked); late > bound {
		tr.Errorf("the other collector got an event after %v, want at most %v: it has waited", late, bound)
	}
}

// filled ends the load when it has lasted long enough, waits until a collector
// has all of the stream, as far as it ever will, and compares.
func (tr *trial) filled(a *audience) outcome {
	tr.Helper()
	if left := tr.scale.load - time.Since(tr.began); left > 0 {
		tr.wait(left)
	}
	sent := tr.ids()
	tr.await("the tap holds nothing more", func(context.Context) bool {
		return tr.tap.metric(tr.T, "siptrace_tap_buffer_bytes") == 0
	})
	js := jetStream(tr.T, tr.nats)
	tr.await("all of the stream is settled", func(ctx context.Context) bool {
		return tr.open(ctx, js, func(info *jetstream.ConsumerInfo) bool { return info.NumPending > 0 || info.NumAckPending > 0 }) == 0
	})
	return tally(sent, streamed(tr.T, tr.nats), a.heard())
}

// arrived fails the test unless all that was sent has come to a collector.
func (tr *trial) arrived(o outcome) {
	tr.Helper()
	if o.before+o.after+o.strange > 0 {
		tr.Errorf("%s: of %d events %d are not in the stream, %d of the stream did not come, %d came that were not sent",
			tr.fault, o.sent, o.before, o.after, o.strange)
	}
}

func TestFaults_forwarderKilled(t *testing.T) {
	brief(t)
	nats, there := startNATS(t), listen(t, loopback+":0")
	tr := try(t, "hep-forwarder: kill -9, started again", nats, nil)
	tr.impatient(there)
	victim := tr.startForwarder(there)
	tr.begin()
	tr.await("the collector gets something", func(context.Context) bool { return there.distinct() > 0 })
	victim.kill(t)
	tr.startForwarder(there)
	tr.caughtUp(there)
	o := tr.filled(there)
	tr.arrived(o)
	tr.report(o, "what it had sent and not acknowledged came again")
}

// caughtUp waits until a collector has what is sent now, and all of the stream
// that was there before is settled.
func (tr *trial) caughtUp(a *audience) {
	tr.Helper()
	js := jetStream(tr.T, tr.nats)
	began, mark := time.Now(), tr.mark()
	tr.await("the collector gets what is sent now", func(context.Context) bool { return a.has(mark) })
	tr.back = time.Since(began)
	behind := streamState(tr.Context(), tr.T, js).LastSeq
	tr.await("what is in the stream is settled", func(ctx context.Context) bool {
		return tr.open(ctx, js, func(info *jetstream.ConsumerInfo) bool { return info.AckFloor.Stream < behind }) == 0
	})
	tr.caught = time.Since(began)
}

// open is how many durable consumers have something open, -1 if nobody knows.
func (tr *trial) open(ctx context.Context, js jetstream.JetStream, isOpen func(*jetstream.ConsumerInfo) bool) int {
	s, err := js.Stream(ctx, bus.StreamName)
	if err != nil {
		return -1
	}
	n, list := 0, s.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Config.Durable != "" && isOpen(info) {
			n++
		}
	}
	if list.Err() != nil {
		return -1
	}
	return n
}

func TestFaults_collectorDown(t *testing.T) {
	brief(t)
	nats, other, there := startNATS(t), listen(t, loopback+":0"), listen(t, freeAddr(t))
	tr := try(t, fmt.Sprintf("collector: down for %v, and back", faultScale().away), nats, nil)
	tr.startForwarder(other, there)
	tr.begin()
	tr.await("the collector gets something", func(context.Context) bool { return there.distinct() > 0 })
	there.leave()
	tr.wait(tr.scale.away)
	tr.prompt(other)
	there.open(t, there.addr)
	tr.caughtUp(there)
	o := tr.filled(there)
	tr.arrived(o)
	tr.undisturbed(other)
	tr.report(o, "filled afterwards; the other collector never waited")
}

// undisturbed fails the test unless a collector has all of the stream, once.
func (tr *trial) undisturbed(other *audience) {
	tr.Helper()
	if o := tr.filled(other); o.after+o.double+o.strange > 0 {
		tr.Errorf("the other collector misses %d, has %d too many and %d that were not sent", o.after, o.double, o.strange)
	}
}

func TestFaults_collectorResetsConnectionsInMidFrame(t *testing.T) {
	brief(t)
	nats, other, bad := startNATS(t), listen(t, loopback+":0"), listen(t, loopback+":0")
	bad.behave(false)
	tr := try(t, fmt.Sprintf("collector: connections reset in mid-frame for %v", faultScale().dbAway), nats, nil)
	tr.startForwarder(other, bad)
	tr.begin()
	tr.wait(tr.scale.dbAway)
	tr.await("some connections were reset", func(context.Context) bool {
		breaks, _ := bad.behave(false)
		return breaks >= 2
	})
	tr.prompt(other)
	breaks, unread := bad.behave(true)
	tr.caughtUp(bad)
	o := tr.filled(bad)
	if o.before > 0 || o.strange > 0 {
		t.Errorf("%d events are not in the stream, %d came that were not sent", o.before, o.strange)
	}
	const while = 64 << 10 // what may come between the look and the reset
	if most := (unread + breaks*while) / (tr.bytes / tr.load.count()); o.after > most {
		t.Errorf("%d events did not come, want at most the %d that the collector had taken and thrown away", o.after, most)
	}
	tr.undisturbed(other)
	tr.report(o, "%d resets, each throwing away what the collector's kernel had acknowledged, %d bytes in all; the other never waited",
		breaks, unread)
}
