package e2e

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// startForwarder starts a hep-forwarder for collectors at addresses. In the
// short form what a dead one held comes again after two seconds.
func (tr *trial) startForwarder(addrs ...string) *process {
	tr.Helper()
	args := []string{"--nats", tr.nats.url(), "--start", "all", "--http", loopback + ":0"}
	for _, a := range addrs {
		args = append(args, "--to", "hep+tcp://"+a)
	}
	return program(tr.T, "hep-forwarder", args...)
}

func streamConsumers(tr *trial, js jetstream.JetStream) int {
	s, err := js.Stream(tr.Context(), bus.StreamName)
	if err != nil {
		tr.Fatal(err)
	}
	return s.CachedInfo().State.Consumers
}

// impatient lets the consumers of a forwarder have an AckWait of two seconds.
func (tr *trial) impatient(n int, addrs ...string) {
	tr.Helper()
	if fullFaults() {
		return
	}
	js := jetStream(tr.T, tr.nats)
	f := tr.startForwarder(addrs...)
	eventually(tr.T, "the consumers are there", func() bool {
		return streamConsumers(tr, js) == n
	})
	f.stop(tr.T)
	s, err := js.Stream(tr.Context(), bus.StreamName)
	if err != nil {
		tr.Fatal(err)
	}
	list := s.ListConsumers(tr.Context())
	for info := range list.Info() {
		info.Config.AckWait = 2 * time.Second
		if _, err := js.UpdateConsumer(tr.Context(), bus.StreamName, info.Config); err != nil {
			tr.Fatal(err)
		}
	}
	if err := list.Err(); err != nil {
		tr.Fatal(err)
	}
}

// filled waits until a collector has all of the stream, and compares.
func (tr *trial) filled(c *collector) outcome {
	tr.Helper()
	tr.halt()
	sent := tr.ids()
	eventually(tr.T, "the tap has published all", func() bool {
		return tr.tap.metric(tr.T, "siptrace_tap_published_events_total") >= float64(len(sent))
	})
	stream := streamed(tr.T, tr.nats)
	eventually(tr.T, "the collector has all", func() bool {
		return tally(sent, stream, heard(c.received(tr.T))).after == 0
	})
	return tally(sent, stream, heard(c.received(tr.T)))
}

func TestFaults_forwarderKilled(t *testing.T) {
	nats, there := startNATS(t), collectTCP(t)
	tr := try(t, "hep-forwarder: kill -9, started again", nats, nil)
	tr.impatient(1, there.addr())
	victim := tr.startForwarder(there.addr())
	tr.begin()
	eventually(t, "the collector gets something", func() bool { return len(there.received(t)) > 0 })
	victim.signal(t, syscall.SIGKILL)
	victim.wait(t)
	tr.startForwarder(there.addr())
	began := time.Now()
	tr.wait(tr.scale.lead)
	o := tr.filled(there)
	tr.caught = time.Since(began)
	tr.back = tr.caught
	if o.before > 0 || o.strange > 0 {
		t.Errorf("%d events not in the stream, %d were never sent", o.before, o.strange)
	}
	tr.report(o, "at least once: what was sent and not acknowledged came again")
}

// A rude collector breaks each connection in the middle of a packet.
type rude struct {
	ln     net.Listener
	mu     sync.Mutex
	breaks int
	kind   *collector // what it hands connections to when it has had enough
	calm   bool
}

func startRude(t *testing.T) *rude {
	t.Helper()
	ln, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rude{ln: ln, kind: &collector{ln: ln, conns: make(map[net.Conn]bool)}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		r.kind.hangUp()
		wg.Wait()
	})
	return r
}

func (r *rude) serve(conn net.Conn) {
	r.mu.Lock()
	calm := r.calm
	r.mu.Unlock()
	if calm {
		r.kind.read(conn)
		return
	}
	_, _ = io.CopyN(io.Discard, conn, 20_011) // some packets and a piece of one
	_ = conn.(*net.TCPConn).SetLinger(0)      // a reset, not an end
	_ = conn.Close()
	r.mu.Lock()
	r.breaks++
	r.mu.Unlock()
}

// settle makes it a good one, and says how often it was not.
func (r *rude) settle() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calm = true
	return r.breaks
}

func TestFaults_collectorDown(t *testing.T) {
	nats, other := startNATS(t), collectTCP(t)
	addr := freeTCP(t)
	tr := try(t, "collector: down, and back", nats, nil)
	tr.startForwarder(other.addr(), addr)
	first := collectTCPAt(t, addr)
	tr.begin()
	eventually(t, "the collector gets something", func() bool { return len(first.received(t)) > 0 })
	_ = first.ln.Close()
	first.hangUp()
	tr.wait(tr.scale.dbAway)
	mark := tr.mark()
	eventually(t, "the other collector does not wait", func() bool { return heard(other.received(t))[mark] > 0 })

	second := collectTCPAt(t, addr)
	began := time.Now()
	tr.wait(tr.scale.lead)
	sent := tr.ids()
	both := func() map[trace.ID]int { return heard(append(first.received(t), second.received(t)...)) }
	eventually(t, "the collector has all", func() bool { return len(both()) >= len(sent) })
	tr.caught = time.Since(began)
	tr.back = tr.caught
	o := tally(sent, streamed(t, nats), both())
	if o.before+o.after+o.strange > 0 {
		t.Errorf("%d of %d events are missing, %d were never sent", o.before+o.after, o.sent, o.strange)
	}
	if good := tr.filled(other); good.after > 0 || good.double > 0 {
		t.Errorf("the other collector misses %d and has %d twice", good.after, good.double)
	}
	tr.report(o, "filled afterwards; the other collector never waited")
}

func TestFaults_collectorResetsConnectionsInMidFrame(t *testing.T) {
	nats, other := startNATS(t), collectTCP(t)
	bad := startRude(t)
	tr := try(t, "collector: connections reset in mid-frame", nats, nil)
	tr.startForwarder(other.addr(), bad.ln.Addr().String())
	tr.begin()
	eventually(t, "some connections were reset", func() bool {
		bad.mu.Lock()
		defer bad.mu.Unlock()
		return bad.breaks >= 2
	})
	mark := tr.mark()
	eventually(t, "the other collector does not wait", func() bool { return heard(other.received(t))[mark] > 0 })
	breaks := bad.settle()
	// From here on all has to arrive; what the resets swallowed after the
	// kernel had acknowledged it nobody can know.
	mark = tr.mark()
	began := time.Now()
	eventually(t, "the collector gets what is sent now", func() bool { return heard(bad.kind.received(t))[mark] > 0 })
	tr.caught = time.Since(began)
	tr.back = tr.caught
	tr.halt()
	if good := tr.filled(other); good.after > 0 || good.double > 0 {
		t.Errorf("the other collector misses %d and has %d twice", good.after, good.double)
	}
	got := heard(bad.kind.received(t))
	o := tally(tr.ids(), streamed(t, nats), got)
	if o.before > 0 || o.strange > 0 {
		t.Errorf("%d events not in the stream, %d were never sent", o.before, o.strange)
	}
	tr.report(o, "%d resets: lost is what the collector's kernel had acknowledged before it reset; the other never waited", breaks)
}
