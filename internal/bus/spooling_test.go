package bus_test

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// disk is a spool in memory whose disk may hang or refuse.
type disk struct {
	mu     sync.Mutex
	kept   [][]byte
	events []int
	next   int
	done   int
	closed bool
	refuse error
	hang   chan struct{} // nil does not hang
	asked  chan struct{} // size 1: Append has been called
}

func (d *disk) Append(records [][]byte, events []int) (int, error) {
	select {
	case d.asked <- struct{}{}:
	default:
	}
	if d.hang != nil {
		<-d.hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return 0, d.refuse
	}
	for i, r := range records {
		d.kept, d.events = append(d.kept, append([]byte(nil), r...)), append(d.events, events[i])
	}
	return len(records), nil
}

func (d *disk) Next(yield func(seq uint64, record []byte, events int) bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for more := true; more && d.next < len(d.kept); {
		i := d.next
		d.next++
		more = yield(uint64(i+1), d.kept[i], d.events[i])
	}
	return nil
}

func (d *disk) Done(seqs []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done += len(seqs)
	return nil
}

func (d *disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *disk) set(refuse error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = refuse
}

func TestPublisher_aDiskThatHangsStopsNothingElse(t *testing.T) {
	addr := freeAddr(t)
	c := connect(t, "nats://"+addr, "test")
	d := &disk{hang: make(chan struct{}), asked: make(chan struct{}, 1)}
	p, reg, stop := publisher(t, c, bus.PublisherOptions{
		Spool: d, SpoolSync: time.Millisecond, BufferBytes: 1 << 20, FlushTimeout: 50 * time.Millisecond,
	})
	hung := p.Offer(makeEvents(0, 64))
	<-d.asked // the disk has it, and does not give it back
	accepted := hung
	eventually(t, "the memory is full", func() bool {
		n := p.Offer(makeEvents(accepted, 50))
		accepted += n
		return n == 0
	})
	startServer(t, t.TempDir(), addr)
	ensure(t, c, bus.StreamConfig{})
	eventually(t, "all but what the disk holds is in the stream", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") >= float64(accepted-hung)
	})
	if err := stop(); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("Run error = %v, want one that says what was given up", err)
	}
	lost := metric(t, reg, "siptrace_bus_publish_dropped_events_total")
	if published := metric(t, reg, "siptrace_bus_published_events_total"); published+lost != float64(accepted) {
		t.Errorf("%v events published and %v lost, of %d accepted", published, lost, accepted)
	}
	close(d.hang)
	eventually(t, "the spool is closed when the disk is back", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.closed
	})
}

func TestOffer_withASpoolAndShardsDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("allocations are not counted under the race detector")
	}
	for _, shards := range []int{1, 4} {
		c := connect(t, "nats://127.0.0.1:1", "test")
		d := &disk{hang: make(chan struct{}), asked: make(chan struct{}, 1)}
		o := bus.PublisherOptions{Agent: "a", BufferBytes: 1 << 40, Spool: d, Shards: shards}
		p, err := bus.NewPublisher(c, o, nil, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		events := makeEvents(0, 200)
		got := testing.AllocsPerRun(100, func() {
			if n := p.Offer(events); n != len(events) {
				t.Fatalf("Offer accepted %d events, want %d", n, len(events))
			}
			p.Recycle()
		})
		if got != 0 {
			t.Errorf("with %d shards Offer of %d events allocates %v times, want 0", shards, len(events), got)
		}
	}
}

func TestPublisher_aDiskThatRefusesLeavesTheMemory(t *testing.T) {
	addr := freeAddr(t)
	c := connect(t, "nats://"+addr, "test")
	d := &disk{refuse: syscall.ENOSPC}
	p, reg, stop := publisher(t, c, bus.PublisherOptions{Spool: d, SpoolSync: time.Millisecond})
	failing := func(want float64) func() bool {
		return func() bool { return metric(t, reg, "siptrace_bus_spool_failing") == want }
	}
	if got := p.Offer(makeEvents(0, 1000)); got != 1000 {
		t.Errorf("Offer accepted %d events, want 1000", got)
	}
	eventually(t, "the metric says so", failing(1))
	d.set(nil)
	eventually(t, "the disk is tried again", failing(0))
	p.Offer(makeEvents(1000, 1000))
	startServer(t, t.TempDir(), addr)
	ensure(t, c, bus.StreamConfig{})
	eventually(t, "everything is in the stream", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == 2000
	})
	wantOnce(t, stored(t, c), 2000)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d.done != len(d.kept) || !d.closed {
		t.Errorf("the spool was told of %d of %d records, closed %v", d.done, len(d.kept), d.closed)
	}
}

func TestPublisher_aFrameFromDiskThatIsTooLargeIsDivided(t *testing.T) {
	addr := freeAddr(t)
	d := &disk{}
	away := connect(t, "nats://127.0.0.1:1", "test")
	p, _, stop := publisher(t, away, bus.PublisherOptions{Spool: d, Compression: bus.CompressNone, Linger: time.Hour})
	p.Offer(makeEvents(0, 200))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, t.TempDir(), addr)
	c := connect(t, "nats://"+addr, "test")
	ensure(t, c, bus.StreamConfig{})
	js, _ := jetStream(t, s)
	stream, err := js.Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgSize = 8 << 10
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	d.closed = false
	reg := prometheus.NewRegistry()
	p, err = bus.NewPublisher(c, bus.PublisherOptions{Agent: "test", Spool: d}, reg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	running(t, p.Run)
	eventually(t, "all of it is in the stream", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == 200
	})
	wantOnce(t, stored(t, c), 200)
}

func TestPublisher_whatIsNoRecordIsCountedAndLeft(t *testing.T) {
	_, c := bed(t)
	d := &disk{kept: [][]byte{[]byte("nonsense of a later version")}, events: []int{7}}
	_, reg, stop := publisher(t, c, bus.PublisherOptions{Spool: d, SpoolSync: time.Millisecond})
	eventually(t, "it is counted", func() bool { return metric(t, reg, "siptrace_bus_publish_dropped_events_total") == 7 })
	if err := stop(); err != nil && !errors.Is(err, bus.ErrPublisherClosed) {
		t.Error(err)
	}
	if d.done != 1 {
		t.Errorf("the spool was told of %d records, want 1", d.done)
	}
}

func TestPublisher_aRecordThatIsDividedIsDoneWithItsLastPart(t *testing.T) {
	d := &disk{}
	away := connect(t, "nats://127.0.0.1:1", "test")
	p, _, stop := publisher(t, away, bus.PublisherOptions{Spool: d})
	p.Offer(makeEvents(0, 200))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	reg := prometheus.NewRegistry()
	// Nothing is written to disk again in the time of this test.
	p, err := bus.NewPublisher(c, bus.PublisherOptions{Agent: "test", Spool: d, Shards: 4, SpoolSync: time.Hour}, reg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	stop = running(t, p.Run)
	eventually(t, "the parts are tried", func() bool { return metric(t, reg, "siptrace_bus_publish_retries_total") > 0 })
	if done := d.doneSoFar(); done != 0 {
		t.Errorf("%d records are done, and there is no stream", done)
	}
	ensure(t, c, bus.StreamConfig{Shards: 4})
	eventually(t, "all of it is in the streams", func() bool { return metric(t, reg, "siptrace_bus_published_events_total") == 200 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if done := d.doneSoFar(); done != len(d.kept) {
		t.Errorf("%d of %d records are done", done, len(d.kept))
	}
	wantOnce(t, stored(t, c), 200)
}

func (d *disk) doneSoFar() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}
