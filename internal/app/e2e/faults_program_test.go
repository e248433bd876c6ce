package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// What tells this binary to be a program that is traced from inside.
const (
	insideNATS = "SIPTRACE_TEST_INSIDE_NATS"
	insideTo   = "SIPTRACE_TEST_INSIDE_TO" // where its SIP goes
	insideRate = "SIPTRACE_TEST_INSIDE_RATE"
)

// serveInside is such a program until it is asked to end or killed.
func serveInside(nats, to, rate string) int {
	if err := speak(nats, to, rate); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func speak(nats, to, rate string) error {
	n, err := strconv.Atoi(rate)
	if err != nil {
		return err
	}
	addr, err := net.ResolveUDPAddr("udp4", to)
	if err != nil {
		return err
	}
	p, conn, err := newInside(nats, n)
	if err != nil {
		return err
	}
	defer conn.Close()
	publish, end := context.WithCancel(context.Background())
	defer end()
	published := make(chan error, 1)
	go func() { published <- p.bus.Run(publish) }()
	seeing, flush := context.WithCancel(context.Background())
	defer flush()
	traced := make(chan error, 1)
	go func() { traced <- p.tap.Run(seeing, p) }()
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ended, func() { close(p.stop) })
	if err := p.run(addr); err != nil {
		return err
	}
	flush()
	if err := <-traced; err != nil {
		return err
	}
	end()
	return <-published
}

// A payload tells a message by what is in it.
type payload [sha256.Size]byte

// A farSide gets the SIP that a program sends: what it has, was sent.
type farSide struct {
	conn *net.UDPConn

	mu    sync.Mutex
	times map[payload]int
}

func startFarSide(t *testing.T) *farSide {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	f := &farSide{conn: conn, times: make(map[payload]int)}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 65535)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			f.mu.Lock()
			f.times[sha256.Sum256(b[:n])]++
			f.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		wg.Wait()
	})
	return f
}

func (f *farSide) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.times)
}

// start starts a program that sends to the far side and is traced from inside.
func (f *farSide) start(tr *trial, rate int) *process {
	tr.Helper()
	before := f.count()
	p := launch(tr.T, append(environment(tr.T), insideNATS+"="+tr.nats.url(), insideTo+"="+f.conn.LocalAddr().String(),
		insideRate+"="+strconv.Itoa(rate)), os.Args[0])
	tr.await("the far side hears something", func(context.Context) bool { return f.count() > before })
	return p
}

func TestFaults_programTracedFromInsideKilled(t *testing.T) {
	brief(t)
	d, nats, far := database(t), startNATS(t), startFarSide(t)
	tr := try(t, "program traced from inside: kill -9, started again", nats, d)
	tr.alone = true
	tr.scale.rate /= 2
	tr.startWriter()
	tr.begin()
	victim := far.start(tr, tr.scale.rate)
	tr.wait(tr.scale.lead)
	victim.kill(t)
	heard := far.count()
	heir := far.start(tr, tr.scale.rate)
	tr.cure()
	if left := tr.scale.load - time.Since(tr.began); left > 0 {
		tr.wait(left)
	}
	heir.stop(t)
	tr.finish()

	o := far.census(tr)
	if o.after+o.double > 0 {
		t.Errorf("of %d events in the stream %d are missing, %d stored more than once", o.stream, o.after, o.double)
	}
	if bound := 3 * tr.scale.rate; o.before > bound { // usually the fifth of a second
		t.Errorf("%d events are missing, want at most the %d of the last three seconds", o.before, bound)
	}
	tr.report(o, "lost is what its memory held, of %d messages sent until then; a message waits there 200 ms for a mark", heard)
}

// census compares the messages at the far side, in the stream and in the database.
func (f *farSide) census(tr *trial) outcome {
	tr.Helper()
	stream, known := make(map[payload]int), make(map[trace.ID]bool)
	eachStreamed(tr.T, tr.nats, func(e *trace.Event) {
		if e.Agent.Name == insideAgent && !known[e.ID] {
			known[e.ID] = true
			stream[sha256.Sum256(e.Payload)]++
		}
	})
	rows, err := tr.db.connect(tr.T).Query(tr.Context(), "SELECT sha256(msg) FROM sip_trace WHERE node = $1", insideAgent)
	if err != nil {
		tr.Fatal(err)
	}
	stored := make(map[payload]int)
	for rows.Next() {
		var sum []byte
		if err := rows.Scan(&sum); err != nil {
			tr.Fatal(err)
		}
		stored[payload(sum)]++
	}
	if err := rows.Err(); err != nil {
		tr.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := outcome{sent: len(f.times), stream: len(stream), stored: len(stored)}
	for p := range f.times {
		if stream[p] == 0 {
			o.before++
		}
	}
	for p, n := range stream {
		o.after += max(0, n-stored[p])
		o.double += max(0, stored[p]-n)
	}
	return o
}
