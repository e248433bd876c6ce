package bus_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/testport"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// freeAddr returns a loopback address where nobody listens now, another one
// each time.
func freeAddr(t testing.TB) string { return testport.Addr(t, 10_000, 4000) }

// stored reads the whole stream and returns how often it holds which event.
func stored(t testing.TB, c *bus.Conn) map[int]int {
	t.Helper()
	var k keeper
	tail := bus.NewTail(c, bus.TailOptions{All: true, Stop: true}, testLog(t))
	if err := tail.Run(t.Context(), &k); err != nil {
		t.Fatal(err)
	}
	return k.seen
}

// wantOnce checks that the events 0 to n-1 and no others are there, once each.
func wantOnce(t testing.TB, seen map[int]int, n int) {
	t.Helper()
	missing, double := 0, 0
	for i := range n {
		switch {
		case seen[i] == 0:
			missing++
		case seen[i] > 1:
			double++
		}
	}
	if missing > 0 || double > 0 || len(seen) > n {
		t.Errorf("of %d events %d are missing and %d are there more than once; %d different ones in all", n, missing, double, len(seen))
	}
}

func TestOffer_doesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("allocations are not counted under the race detector")
	}
	c := connect(t, "nats://127.0.0.1:1", "test")
	p, err := bus.NewPublisher(c, bus.PublisherOptions{Agent: "a", BufferBytes: 1 << 40}, nil, testLog(t))
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
		t.Errorf("Offer of %d events allocates %v times, want 0", len(events), got)
	}
}

func TestOffer_withoutServerAcceptsExactlyWhatIsStoredLater(t *testing.T) {
	addr := freeAddr(t)
	c := connect(t, "nats://"+addr, "test")
	p, reg, _ := publisher(t, c, bus.PublisherOptions{BufferBytes: 1 << 20})

	const offered = 40_000
	accepted, refused := 0, 0
	for first := 0; first < offered; first += 50 {
		// Those refused are offered again under the next serials: accepted
		// events are then numbered without a gap.
		n := p.Offer(makeEvents(accepted, 50))
		accepted += n
		refused += 50 - n
	}
	if accepted == 0 || refused == 0 {
		t.Fatalf("accepted %d and refused %d events: the buffer should have taken some and then filled up", accepted, refused)
	}
	if got := metric(t, reg, "siptrace_bus_buffer_bytes"); got > 1<<20 {
		t.Errorf("holds %v bytes, more than the limit", got)
	}
	startServer(t, t.TempDir(), addr)
	ensure(t, c, bus.StreamConfig{})
	eventually(t, "all accepted events are acknowledged", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == float64(accepted)
	})
	wantOnce(t, stored(t, c), accepted)
	if got := p.Offer(makeEvents(accepted, 50)); got != 50 {
		t.Errorf("with room again Offer accepted %d events, want 50", got)
	}
}

func TestPublisher_serverRestartsLoseNothingAndDoubleNothing(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	s := startServer(t, dir, addr)
	c := connect(t, "nats://"+addr, "test")
	ensure(t, c, bus.StreamConfig{})
	p, reg, _ := publisher(t, c, bus.PublisherOptions{})

	const n = 30_000
	offered := make(chan int)
	go func() {
		defer close(offered)
		for first := 0; first < n; first += 50 {
			if got := p.Offer(makeEvents(first, 50)); got != 50 {
				t.Errorf("Offer accepted %d events, want 50", got)
			}
			time.Sleep(time.Millisecond) // traffic, not a burst: the restarts are to fall into it
			if first%10_000 == 5_000 {
				offered <- first
			}
		}
	}()
	for range offered {
		s.Shutdown()
		s = startServer(t, dir, addr)
	}
	eventually(t, "all events are acknowledged", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == n
	})
	wantOnce(t, stored(t, c), n)
}

func TestPublisher_aKilledServerLosesNothingAndDoublesNothing(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	child := startChildServer(t, dir, addr)
	c := connect(t, "nats://"+addr, "test")
	ensure(t, c, bus.StreamConfig{})
	p, reg, _ := publisher(t, c, bus.PublisherOptions{})
	var k keeper
	consume(t, c, bus.ConsumerOptions{BatchEvents: 200, Linger: 5 * time.Millisecond, AckWait: 2 * time.Second}, &k)

	const n = 30_000
	for first := 0; first < n; first += 50 {
		if got := p.Offer(makeEvents(first, 50)); got != 50 {
			t.Fatalf("Offer accepted %d events, want 50", got)
		}
		time.Sleep(time.Millisecond)
		if first%10_000 == 5_000 {
			child.kill()
			child = startChildServer(t, dir, addr)
		}
	}
	eventually(t, "all events arrive at the other side", func() bool { return k.distinct() == n })
	eventually(t, "all events are acknowledged", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == n
	})
	wantOnce(t, stored(t, c), n)
}

func TestPublisher_waitsForTheStreamWithoutHurry(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	p, reg, _ := publisher(t, c, bus.PublisherOptions{})
	p.Offer(makeEvents(0, 100))
	retries := func() float64 { return metric(t, reg, "siptrace_bus_publish_retries_total") }
	eventually(t, "it is tried again", func() bool { return retries() >= 1 })
	began, before := time.Now(), retries()
	time.Sleep(500 * time.Millisecond) // the number of attempts in a time is what is tested
	if got, took := retries()-before, time.Since(began); got > 80*took.Seconds() {
		t.Errorf("%v retries in %v without a stream, want a few", got, took)
	}
	if err := p.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no response from stream") {
		t.Errorf("Check = %v, want that the stream does not answer", err)
	}
	ensure(t, c, bus.StreamConfig{})
	eventually(t, "the events are stored", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == 100
	})
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("Check = %v, want nil", err)
	}
	wantOnce(t, stored(t, c), 100)
}

func TestRun_saysWhatItHadToGiveUp(t *testing.T) {
	c := connect(t, "nats://127.0.0.1:1", "test")
	p, reg, stop := publisher(t, c, bus.PublisherOptions{FlushTimeout: 20 * time.Millisecond})
	p.Offer(makeEvents(0, 10))
	written := make(chan error)
	go func() { written <- p.Write(context.Background(), makeEvents(10, 5)) }()
	eventually(t, "both are held", func() bool { return metric(t, reg, "siptrace_bus_buffer_bytes") > 0 })
	err := stop()
	if err == nil || !strings.Contains(err.Error(), "10 events") {
		t.Errorf("Run error = %v, want one that names the 10 events", err)
	}
	if err := <-written; !errors.Is(err, bus.ErrPublisherClosed) {
		t.Errorf("Write error = %v, want %v", err, bus.ErrPublisherClosed)
	}
	if got := metric(t, reg, "siptrace_bus_publish_dropped_events_total"); got != 10 {
		t.Errorf("counted %v dropped events, want 10", got)
	}
	if got := p.Offer(makeEvents(20, 1)); got != 0 {
		t.Errorf("Offer accepted %d events after the end, want 0", got)
	}
	if err := p.Write(t.Context(), makeEvents(20, 1)); !errors.Is(err, bus.ErrPublisherClosed) {
		t.Errorf("Write error after the end = %v, want %v", err, bus.ErrPublisherClosed)
	}
}

func TestRun_flushesWhenItEnds(t *testing.T) {
	_, c := bed(t)
	p, _, stop := publisher(t, c, bus.PublisherOptions{Linger: time.Hour})
	p.Offer(makeEvents(0, 10))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantOnce(t, stored(t, c), 10)
}

func TestPublisher_offerAndWriteFromManySides(t *testing.T) {
	_, c := bed(t)
	p, reg, _ := publisher(t, c, bus.PublisherOptions{FrameEvents: 7})
	const sides, each = 8, 1_000
	var wg sync.WaitGroup
	for side := range sides {
		wg.Go(func() {
			for i := 0; i < each; i += 20 {
				events := makeEvents(side*each+i, 20)
				if side%2 == 0 {
					if got := p.Offer(events); got != 20 {
						t.Errorf("Offer accepted %d events, want 20", got)
					}
				} else if err := p.Write(t.Context(), events); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all events are acknowledged", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == sides*each
	})
	wantOnce(t, stored(t, c), sides*each)
}

func TestWrite_leavesHalfOfTheBufferToOffer(t *testing.T) {
	c := connect(t, "nats://127.0.0.1:1", "test")
	p, reg, _ := publisher(t, c, bus.PublisherOptions{BufferBytes: 1 << 20, FlushTimeout: 1})
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan error)
	go func() { written <- p.Write(ctx, makeEvents(0, 50_000)) }()
	eventually(t, "Write has filled its half", func() bool {
		return metric(t, reg, "siptrace_bus_buffer_bytes") > 400<<10
	})
	if got := p.Offer(makeEvents(60_000, 100)); got != 100 {
		t.Errorf("Offer beside a blocked Write accepted %d events, want 100", got)
	}
	if got := metric(t, reg, "siptrace_bus_buffer_bytes"); got > 800<<10 {
		t.Errorf("Write holds %v bytes, more than half of the buffer", got)
	}
	cancel()
	if err := <-written; !errors.Is(err, context.Canceled) {
		t.Errorf("Write error = %v, want %v", err, context.Canceled)
	}
}

func TestPublisher_whatHEPCannotCarry(t *testing.T) {
	_, c := bed(t)
	p, reg, _ := publisher(t, c, bus.PublisherOptions{})
	events := makeEvents(0, 3)
	events[1].Time = time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)

	var rejected trace.Rejected
	if err := p.Write(t.Context(), events); !errors.As(err, &rejected) || len(rejected) != 1 || rejected[0].Index != 1 {
		t.Errorf("Write error = %v, want event 1 rejected", err)
	}
	if got := p.Offer(events); got != 3 {
		t.Errorf("Offer returned %d, want 3: nobody can do better with event 1", got)
	}
	if got := metric(t, reg, "siptrace_bus_publish_dropped_events_total"); got != 1 {
		t.Errorf("counted %v dropped events, want 1", got)
	}
	eventually(t, "the others are stored", func() bool {
		seen := stored(t, c)
		return seen[0] >= 1 && seen[2] >= 1
	})
}

func TestPublisher_anEventWithoutIDGetsOne(t *testing.T) {
	_, c := bed(t)
	p, reg, _ := publisher(t, c, bus.PublisherOptions{FrameEvents: 1})
	want := makeEvents(0, 4)
	events := makeEvents(0, 4)
	for i := range events {
		events[i].ID = trace.ID{}
	}
	p.Offer(events[:2])
	if err := p.Write(t.Context(), events[2:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are stored", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == 4
	})
	ids := make(map[trace.ID]bool)
	collect := trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		for i := range events {
			ids[events[i].ID] = true
		}
		return nil
	})
	if err := bus.NewTail(c, bus.TailOptions{All: true, Stop: true}, testLog(t)).Run(t.Context(), collect); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !ids[want[i].ID] {
			t.Errorf("event %d is not stored under its ID", i)
		}
	}
}

func TestPublisher_theSameEventsInTheSameFramesAreStoredOnce(t *testing.T) {
	_, c := bed(t)
	for range 2 { // as when a file is read again
		p, _, stop := publisher(t, c, bus.PublisherOptions{})
		if err := p.Write(t.Context(), makeEvents(0, 200)); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	wantOnce(t, stored(t, c), 200)
}

// sizedServer takes messages of at most limit bytes.
func sizedServer(t *testing.T, limit int32) string {
	t.Helper()
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(t.TempDir(), "store"),
		NoSigs: true, NoLog: true, MaxPayload: limit,
	})
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(quick) {
		t.Fatal("server not ready")
	}
	return ns.ClientURL()
}

// large returns an event with a payload of n bytes that do not compress.
func large(serial, n int) trace.Event {
	e := makeEvents(serial, 1)[0]
	noise := make([]byte, n)
	x := uint32(serial + 1)
	for i := range noise {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		noise[i] = byte(x)
	}
	e.Payload = append(e.Payload, noise...)
	e.ID = trace.ID{}
	e.Identify()
	return e
}

func TestPublisher_dividesWhatIsTooLarge(t *testing.T) {
	const limit = 8 << 10
	t.Run("for the server", func(t *testing.T) {
		c := connect(t, sizedServer(t, limit), "test")
		ensure(t, c, bus.StreamConfig{})
		testDivide(t, c)
	})
	t.Run("for the stream", func(t *testing.T) {
		s, c := bed(t)
		js, _ := jetStream(t, s)
		stream, err := js.Stream(t.Context(), bus.StreamName)
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream.CachedInfo().Config
		cfg.MaxMsgSize = limit
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		testDivide(t, c)
	})
}

func testDivide(t *testing.T, c *bus.Conn) {
	p, reg, _ := publisher(t, c, bus.PublisherOptions{Compression: bus.CompressNone})
	events := makeEvents(0, 200)
	tooLarge := large(200, 20_000)
	if err := p.Write(t.Context(), events[:100]); err != nil {
		t.Fatalf("Write of what fits in smaller frames: %v", err)
	}
	var rejected trace.Rejected
	err := p.Write(t.Context(), append(events[100:150:150], tooLarge))
	if !errors.As(err, &rejected) || len(rejected) != 1 || rejected[0].Index != 50 || rejected[0].Reason != "too large" {
		t.Fatalf("Write error = %v, want event 50 rejected as too large", err)
	}
	if got := p.Offer(append(events[150:200:200], tooLarge)); got != 51 {
		t.Errorf("Offer returned %d, want 51", got)
	}
	eventually(t, "all that can be stored is", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == 200
	})
	eventually(t, "the other one is counted", func() bool {
		return metric(t, reg, "siptrace_bus_publish_dropped_events_total") == 1
	})
	wantOnce(t, stored(t, c), 200)
	if got := metric(t, reg, "siptrace_bus_buffer_bytes"); got != 0 {
		t.Errorf("%v bytes still held", got)
	}
}

func TestPublisher_aLargeEventIsAloneInItsFrame(t *testing.T) {
	s, c := bed(t)
	p, _, _ := publisher(t, c, bus.PublisherOptions{FrameBytes: 4 << 10, Compression: bus.CompressNone})
	small := makeEvents(0, 3)
	events := []trace.Event{small[0], large(1, 30_000), small[2]}
	if err := p.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != 3 {
		t.Errorf("%d frames, want 3", got)
	}
	msg, err := stream.GetMsg(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if msg.Subject != "siptrace.v1.events.0.test" || msg.Header.Get(bus.HeaderFrame) != "1" || len(msg.Header.Get(jetstream.MsgIDHeader)) != 32 {
		t.Errorf("frame on subject %q with header %v", msg.Subject, msg.Header)
	}
}

func TestNewPublisher_refusesWhatCannotWork(t *testing.T) {
	c := connect(t, "nats://127.0.0.1:1", "test")
	for name, o := range map[string]bus.PublisherOptions{
		"unknown compression": {Compression: "zip"},
		"no window":           {Window: -1},
		"no events":           {FrameEvents: -1},
		"frames too large":    {FrameBytes: 1 << 30},
		"buffer too small":    {BufferBytes: 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := bus.NewPublisher(c, o, nil, testLog(t)); err == nil {
				t.Error("no error")
			}
		})
	}
}

func BenchmarkOffer(b *testing.B) {
	c := connect(b, "nats://127.0.0.1:1", "bench")
	p, err := bus.NewPublisher(c, bus.PublisherOptions{Agent: "a", BufferBytes: 1 << 50}, nil, testLog(b))
	if err != nil {
		b.Fatal(err)
	}
	events := makeEvents(0, 32)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		p.Offer(events)
		p.Recycle()
		n += len(events)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}

func TestPublisher_theSameEventsForAnotherTableAreAnotherFrame(t *testing.T) {
	_, c := bed(t)
	p, _, _ := publisher(t, c, bus.PublisherOptions{})
	events := makeEvents(0, 10)
	if err := p.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		events[i].Table = "lab"
	}
	if err := p.Write(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	tables := map[string]int{}
	err := bus.NewTail(c, bus.TailOptions{All: true, Stop: true}, testLog(t)).Run(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		for _, e := range events {
			tables[e.Table]++
		}
		return nil
	}))
	if err != nil || tables["lab"] != 10 || tables[""] != 10 {
		t.Errorf("in the stream are %v, %v; both Writes returned nil", tables, err)
	}
}
