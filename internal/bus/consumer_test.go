package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// jetStream returns a plain JetStream client, for what only an administrator does.
func jetStream(t testing.TB, s *natsd.Server) (jetstream.JetStream, *nats.Conn) {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js, nc
}

// publish stores the events from the serial first on, in frames of 10.
func publish(t testing.TB, c *bus.Conn, first, n int) {
	t.Helper()
	p, _, stop := publisher(t, c, bus.PublisherOptions{FrameEvents: 10})
	if err := p.Write(t.Context(), makeEvents(first, n)); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// rejectsOf reads the rejects stream.
func rejectsOf(t testing.TB, js jetstream.JetStream) []*jetstream.RawStreamMsg {
	t.Helper()
	s, err := js.Stream(t.Context(), bus.RejectsStreamName)
	if err != nil {
		t.Fatal(err)
	}
	var msgs []*jetstream.RawStreamMsg
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, m)
	}
	return msgs
}

func durable(t testing.TB, js jetstream.JetStream) *jetstream.ConsumerInfo {
	t.Helper()
	jc, err := js.Consumer(t.Context(), bus.StreamName, "worker")
	if err != nil {
		t.Fatal(err)
	}
	return jc.CachedInfo()
}

// newConsumer returns a consumer that does not run yet.
func newConsumer(t testing.TB, c *bus.Conn, o bus.ConsumerOptions) *bus.Consumer {
	t.Helper()
	if o.Durable == "" {
		o.Durable = "worker"
	}
	consumer, err := bus.NewConsumer(c, o, bus.NewRejects(c), nil, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return consumer
}

// settled waits until the durable has nothing left in anybody's hands.
func settled(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	eventually(t, "every frame is settled", func() bool {
		info := durable(t, js)
		return info.NumAckPending == 0 && info.NumPending == 0
	})
}

// patientAckWait is long enough for a worker on a busy machine to give its signs
// of life in time, and short enough to wait until it is over.
const patientAckWait = 2 * time.Second

func TestConsumer_aCrashedWorkersFramesComeAgain(t *testing.T) {
	s, c := bed(t)
	publish(t, c, 0, 200)
	js, _ := jetStream(t, s)
	takenAndForgotten(t, js, 7)
	var k keeper
	reg, _ := consume(t, c, bus.ConsumerOptions{AckWait: patientAckWait}, &k)
	eventually(t, "all events arrive", func() bool { return k.distinct() == 200 })
	settled(t, js)
	if got := metric(t, reg, "siptrace_consumer_redelivered_frames_total"); got != 7 {
		t.Errorf("%v frames redelivered, want the 7 of the crashed worker", got)
	}
}

func TestConsumer_aStoppedWorkerGivesBackAtOnce(t *testing.T) {
	s, c := bed(t)
	publish(t, c, 0, 200)
	js, _ := jetStream(t, s)
	stuck := keeper{fail: func([]trace.Event) error { return errors.New("database away") }}
	_, stop := consume(t, c, bus.ConsumerOptions{AckWait: time.Hour}, &stuck)
	eventually(t, "the worker holds frames", func() bool {
		stuck.mu.Lock()
		defer stuck.mu.Unlock()
		return stuck.calls > 0
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var k keeper
	consume(t, c, bus.ConsumerOptions{AckWait: time.Hour}, &k) // an AckWait nobody waits for
	eventually(t, "all events arrive", func() bool { return k.distinct() == 200 })
	settled(t, js)
}

func TestConsumer_processesShareTheWork(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	var a, b keeper
	o := bus.ConsumerOptions{BatchEvents: 50, Linger: 10 * time.Millisecond}
	consume(t, c, o, &a)
	consume(t, connect(t, s.ClientURL(), "other"), o, &b)
	publish(t, c, 0, 20_000)
	eventually(t, "all events arrive", func() bool { return a.all()+b.all() >= 20_000 })
	settled(t, js)
	if a.all()+b.all() != 20_000 {
		t.Errorf("the two got %d and %d events, want 20000 in all", a.all(), b.all())
	}
	if a.all() == 0 || b.all() == 0 {
		t.Errorf("the two got %d and %d events, want both to get some", a.all(), b.all())
	}
}

func TestConsumer_aLongOutageOfTheSinkCausesNoRedelivery(t *testing.T) {
	t.Parallel() // it waits more than it works
	s, c := bed(t)
	publish(t, c, 0, 500)
	js, _ := jetStream(t, s)
	back := time.Now().Add(3 * patientAckWait)
	k := keeper{fail: func([]trace.Event) error {
		if time.Now().Before(back) {
			return errors.New("database away")
		}
		return nil
	}}
	reg, _ := consume(t, c, bus.ConsumerOptions{AckWait: patientAckWait}, &k)
	eventually(t, "all events arrive", func() bool { return k.distinct() == 500 })
	settled(t, js)
	if got := metric(t, reg, "siptrace_consumer_redelivered_frames_total"); got != 0 {
		t.Errorf("%v frames redelivered, want 0", got)
	}
	if got := metric(t, reg, "siptrace_consumer_write_retries_total"); got == 0 {
		t.Error("no retry counted")
	}
	if got := k.all(); got != 500 {
		t.Errorf("the sink took %d events, want 500", got)
	}
}

func TestConsumer_aLongWriteCausesNoRedelivery(t *testing.T) {
	t.Parallel() // it waits more than it works
	s, c := bed(t)
	publish(t, c, 0, 100)
	js, _ := jetStream(t, s)
	var k keeper
	slow := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		time.Sleep(3 * patientAckWait) // a commit that takes long
		return k.Write(ctx, events)
	})
	reg, _ := consume(t, c, bus.ConsumerOptions{AckWait: patientAckWait}, slow)
	eventually(t, "all events arrive", func() bool { return k.distinct() == 100 })
	settled(t, js)
	if got := metric(t, reg, "siptrace_consumer_redelivered_frames_total"); got != 0 {
		t.Errorf("%v frames redelivered, want 0", got)
	}
}

func TestConsumer_rejectedEventsAreKeptAndTheOthersWritten(t *testing.T) {
	s, c := bed(t)
	publish(t, c, 0, 100)
	js, _ := jetStream(t, s)
	bad := func(e *trace.Event) bool { return serialOf(e)%30 == 7 }
	k := keeper{fail: func(events []trace.Event) error {
		var rejected trace.Rejected
		for i := range events {
			if bad(&events[i]) {
				rejected = append(rejected, trace.Rejection{Index: i, Reason: "unknown table", Err: errors.New("no such\r\ntable: x")})
			}
		}
		if rejected == nil {
			return nil
		}
		return rejected
	}}
	reg, _ := consume(t, c, bus.ConsumerOptions{}, &k)
	eventually(t, "all events arrive", func() bool { return k.distinct() == 100 })
	settled(t, js)

	var decoder trace.FrameDecoder
	got := make(map[int]bool)
	for _, m := range rejectsOf(t, js) {
		events, err := decoder.Decode(m.Data)
		if err != nil || len(events) != 1 {
			t.Fatalf("reject holds %d events, error %v", len(events), err)
		}
		got[serialOf(&events[0])] = true
		if m.Subject != "siptrace.v1.rejects.worker" {
			t.Errorf("subject %q", m.Subject)
		}
		for header, want := range map[string]string{
			bus.HeaderReason: "unknown table",
			bus.HeaderWorker: "worker",
			bus.HeaderDetail: "no such  table: x",
		} {
			if got := m.Header.Get(header); got != want {
				t.Errorf("%s = %q, want %q", header, got, want)
			}
		}
		if _, err := time.Parse(time.RFC3339Nano, m.Header.Get(bus.HeaderTime)); err != nil {
			t.Errorf("%s: %v", bus.HeaderTime, err)
		}
	}
	if want := map[int]bool{7: true, 37: true, 67: true, 97: true}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("rejected %v, want %v", got, want)
	}
	if got := metric(t, reg, "siptrace_consumer_rejected_total"); got != 4 {
		t.Errorf("counted %v rejects, want 4", got)
	}
}

func TestConsumer_aBatchRefusedForGoodIsKeptWhole(t *testing.T) {
	s, c := bed(t)
	publish(t, c, 0, 20)
	js, _ := jetStream(t, s)
	refuse := trace.SinkFunc(func(context.Context, []trace.Event) error {
		return fmt.Errorf("collector says no: %w", trace.ErrPermanent)
	})
	consume(t, c, bus.ConsumerOptions{}, refuse)
	eventually(t, "all are in the rejects", func() bool { return len(rejectsOf(t, js)) == 20 })
	settled(t, js)
	if got := rejectsOf(t, js)[0].Header.Get(bus.HeaderReason); got != "refused" {
		t.Errorf("reason %q, want %q", got, "refused")
	}
}

func TestConsumer_whatIsNoFrameHarmsNoOther(t *testing.T) {
	s, c := bed(t)
	js, nc := jetStream(t, s)
	publish(t, c, 0, 50)
	garbage := []*nats.Msg{
		{Data: []byte("INVITE sip:bob@example.org SIP/2.0\r\n\r\n")},
		{Data: []byte("HEP3\xff\xff\x00\x00")},
		{Data: []byte("not s2"), Header: nats.Header{bus.HeaderEncoding: []string{"s2"}}},
		{Data: []byte("x"), Header: nats.Header{bus.HeaderEncoding: []string{"br"}}},
		{Data: []byte("x"), Header: nats.Header{bus.HeaderFrame: []string{"99"}}},
	}
	for _, m := range garbage {
		m.Subject = "siptrace.v1.events.0.stranger"
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, c, 50, 50)
	terminated, err := nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}

	var k keeper
	reg, _ := consume(t, c, bus.ConsumerOptions{Workers: 1}, &k)
	eventually(t, "all events arrive", func() bool { return k.distinct() == 100 })
	settled(t, js)
	rejects := rejectsOf(t, js)
	if len(rejects) != len(garbage) {
		t.Fatalf("%d rejects, want %d", len(rejects), len(garbage))
	}
	for i, m := range rejects {
		if string(m.Data) != string(garbage[i].Data) {
			t.Errorf("reject %d is %q, want the message as it was: %q", i, m.Data, garbage[i].Data)
		}
		if got := m.Header.Get(bus.HeaderReason); got != "undecodable frame" {
			t.Errorf("reject %d has reason %q", i, got)
		}
		if got, want := m.Header.Get(bus.HeaderEncoding), garbage[i].Header.Get(bus.HeaderEncoding); got != want {
			t.Errorf("reject %d has encoding %q, want %q", i, got, want)
		}
		if adv, err := terminated.NextMsg(quick); err != nil || !strings.Contains(string(adv.Data), "undecodable frame") {
			t.Errorf("advisory %d: %v, want one with the reason", i, err)
		}
	}
	if got := metric(t, reg, "siptrace_consumer_rejected_total"); got != float64(len(garbage)) {
		t.Errorf("counted %v rejects, want %d", got, len(garbage))
	}
	if info := durable(t, js); info.AckFloor.Stream != 15 {
		t.Errorf("ack floor %d, want 15: nothing is left behind", info.AckFloor.Stream)
	}
}

func TestConsumer_goesOnWhenTheDurableIsDeleted(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	var k keeper
	consumer := newConsumer(t, c, bus.ConsumerOptions{Poll: 20 * time.Millisecond})
	running(t, func(ctx context.Context) error { return consumer.Run(ctx, &k) })
	publish(t, c, 0, 100)
	eventually(t, "the first arrive and are settled", func() bool { floor, _ := consumer.Seen(); return floor == 10 })
	if err := js.DeleteConsumer(t.Context(), bus.StreamName, "worker"); err != nil {
		t.Fatal(err)
	}
	publish(t, c, 100, 100)
	eventually(t, "the others arrive", func() bool { return k.distinct() == 200 })
	if got := k.all(); got != 200 {
		t.Errorf("the sink got %d events, want 200: the new durable goes on where the old one was", got)
	}
}

func TestConsumer_goesOnWhenTheStreamIsMadeAnew(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	var k keeper
	consume(t, c, bus.ConsumerOptions{New: true, Poll: 20 * time.Millisecond}, &k)
	eventually(t, "the durable is made", func() bool {
		_, err := js.Consumer(t.Context(), bus.StreamName, "worker")
		return err == nil
	})
	publish(t, c, 0, 100)
	eventually(t, "the first arrive", func() bool { return k.distinct() == 100 })
	if err := js.DeleteStream(t.Context(), bus.StreamName); err != nil {
		t.Fatal(err)
	}
	ensure(t, c, bus.StreamConfig{})
	publish(t, c, 100, 100) // before the durable is there again
	eventually(t, "the others arrive", func() bool { return k.distinct() == 200 })
}

func TestConsumer_waitsForServerAndStream(t *testing.T) {
	addr := freeAddr(t)
	c := connect(t, "nats://"+addr, "test")
	consumer := newConsumer(t, c, bus.ConsumerOptions{})
	var k keeper
	running(t, func(ctx context.Context) error { return consumer.Run(ctx, &k) })
	wantCheck := func(words string) {
		t.Helper()
		eventually(t, "the check says: "+words, func() bool {
			err := consumer.Check(t.Context())
			return err != nil && strings.Contains(err.Error(), words)
		})
	}
	wantCheck("waiting for NATS at nats://" + addr + ": connection refused")
	startServer(t, t.TempDir(), addr)
	wantCheck("stream not found")
	ensure(t, c, bus.StreamConfig{})
	eventually(t, "the check is content", func() bool { return consumer.Check(t.Context()) == nil })
	publish(t, c, 0, 10)
	eventually(t, "all events arrive", func() bool { return k.distinct() == 10 })
}

func TestConsumer_serverRestartsLoseNothing(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	s := startServer(t, dir, addr)
	c := connect(t, "nats://"+addr, "test")
	ensure(t, c, bus.StreamConfig{})
	p, _, _ := publisher(t, c, bus.PublisherOptions{FrameEvents: 10})
	var k keeper
	consume(t, c, bus.ConsumerOptions{BatchEvents: 100, Linger: 5 * time.Millisecond, AckWait: 2 * time.Second}, &k)
	const n = 6_000
	for first := 0; first < n; first += 20 {
		if got := p.Offer(makeEvents(first, 20)); got != 20 {
			t.Fatalf("Offer accepted %d events, want 20", got)
		}
		time.Sleep(time.Millisecond)
		if first == n/3 || first == 2*n/3 {
			s.Shutdown()
			s = startServer(t, dir, addr)
		}
	}
	eventually(t, "all events arrive", func() bool { return k.distinct() == n })
	js, _ := jetStream(t, s)
	settled(t, js)
}

func TestConsumer_finishesTheRunningWrite(t *testing.T) {
	s, c := bed(t)
	publish(t, c, 0, 100)
	js, _ := jetStream(t, s)
	started, finish := make(chan struct{}), make(chan struct{})
	var written atomic.Int64
	sink := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		close(started)
		<-finish
		written.Add(int64(len(events)))
		return ctx.Err()
	})
	consumer := newConsumer(t, c, bus.ConsumerOptions{Workers: 1, BatchEvents: 100, Linger: quick})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := consumer.Run(ctx, sink); err != nil {
			t.Error(err)
		}
	})
	<-started
	cancel()
	close(finish)
	wg.Wait()
	if got := written.Load(); got != 100 {
		t.Errorf("wrote %d events, want 100", got)
	}
	settled(t, js)
	if floor := durable(t, js).AckFloor.Stream; floor != 10 {
		t.Errorf("acknowledged up to frame %d, want 10", floor)
	}
}

func TestConsumer_aWriteThatDoesNotEndIsCutOff(t *testing.T) {
	s, c := bed(t)
	publish(t, c, 0, 10)
	js, _ := jetStream(t, s)
	started := make(chan struct{}, 1)
	sink := trace.SinkFunc(func(ctx context.Context, _ []trace.Event) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	_, stop := consume(t, c, bus.ConsumerOptions{DrainTimeout: 50 * time.Millisecond, AckWait: time.Hour}, sink)
	<-started
	if err := stop(); err != nil {
		t.Error(err)
	}
	var k keeper
	consume(t, c, bus.ConsumerOptions{}, &k)
	eventually(t, "the next worker gets the events at once", func() bool { return k.distinct() == 10 })
	settled(t, js)
}

func TestConsumer_countsWhatTheStreamDiscardedUnread(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	var k keeper
	o := bus.ConsumerOptions{Poll: 20 * time.Millisecond}
	reg, stop := consume(t, c, o, &k)
	publish(t, c, 0, 100) // frames 1 to 10
	eventually(t, "the first arrive", func() bool { return k.distinct() == 100 })
	settled(t, js)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := metric(t, reg, "siptrace_stream_expired_unread_total"); got != 0 {
		t.Errorf("counted %v frames as lost while none was", got)
	}
	publish(t, c, 100, 300) // frames 11 to 40
	keepFrames(t, js, 12)   // leaves 29 to 40
	reg, _ = consume(t, c, o, &k)
	eventually(t, "what is left arrives", func() bool { return k.distinct() == 220 })
	settled(t, js)
	expired(t, reg, 18)
}

func TestConsumer_countsWhatVanishesUnderItsEyes(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 100) // frames 1 to 10
	holding, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var k keeper
	slow := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		once.Do(func() { close(holding); <-release })
		return k.Write(ctx, events)
	})
	reg, _ := consume(t, c, bus.ConsumerOptions{Workers: 1, MaxAckPending: 10, Poll: 20 * time.Millisecond}, slow)
	<-holding
	publish(t, c, 100, 300) // frames 11 to 40
	keepFrames(t, js, 10)   // leaves 31 to 40
	close(release)
	eventually(t, "what was in hand and what is left arrives", func() bool { return k.distinct() == 200 })
	settled(t, js)
	expired(t, reg, 20)
}

func TestConsumer_countsExactlyWhatVanishesWhileFramesComeAgain(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 400) // frames 1 to 40
	takenAndForgotten(t, js, 7)
	var k keeper
	var gate sync.RWMutex
	slow := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		gate.RLock()
		defer gate.RUnlock()
		return k.Write(ctx, events)
	})
	o := bus.ConsumerOptions{Workers: 2, BatchEvents: 20, AckWait: patientAckWait, Poll: 20 * time.Millisecond}
	reg, stop := consume(t, c, o, slow)
	eventually(t, "what was forgotten comes again", func() bool {
		return metric(t, reg, "siptrace_consumer_redelivered_frames_total") == 7 && k.distinct() == 400
	})
	expired(t, reg, 0)

	gate.Lock()
	publish(t, c, 400, 600) // frames 41 to 100
	eventually(t, "both workers hold frames", func() bool { return durable(t, js).NumAckPending >= 2 })
	keepFrames(t, js, 10)
	gate.Unlock()
	settled(t, js)
	if err := stop(); err != nil { // what it held is written now
		t.Fatal(err)
	}
	lost := (1000 - k.distinct()) / 10
	if lost == 0 {
		t.Fatal("nothing is missing: the test proves nothing")
	}
	expired(t, reg, float64(lost))
}

// takenAndForgotten makes the durable and takes n frames as a worker does that is
// never heard of again.
func takenAndForgotten(t *testing.T, js jetstream.JetStream, n int) {
	t.Helper()
	jc, err := js.CreateConsumer(t.Context(), bus.StreamName, jetstream.ConsumerConfig{
		Durable: "worker", FilterSubject: "siptrace.v1.events.>", AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: patientAckWait, MaxAckPending: 1024, MaxDeliver: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := jc.Fetch(n, jetstream.FetchMaxWait(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for range batch.Messages() {
		taken++
	}
	if taken != n {
		t.Fatalf("the first worker got %d frames, want %d", taken, n)
	}
}

// expired waits until n frames are counted as lost, and sees that it stays so.
func expired(t *testing.T, reg *prometheus.Registry, n float64) {
	t.Helper()
	count := func() float64 { return metric(t, reg, "siptrace_stream_expired_unread_total") }
	eventually(t, fmt.Sprintf("%v frames are counted as lost", n), func() bool { return count() >= n })
	if got := count(); got != n {
		t.Errorf("counted %v frames as lost, want %v", got, n)
	}
}

// keepFrames lets the stream discard all but the newest n frames.
func keepFrames(t *testing.T, js jetstream.JetStream, n int64) {
	t.Helper()
	stream, err := js.Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = n
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func TestConsumer_aNewDurableHasLostNothing(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 100)
	stream, err := js.Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeKeep(2)); err != nil {
		t.Fatal(err)
	}
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprint("new=", fresh), func(t *testing.T) {
			var k keeper
			o := bus.ConsumerOptions{Durable: fmt.Sprint("fresh-", fresh), New: fresh, Poll: 10 * time.Millisecond}
			reg := prometheus.NewRegistry()
			consumer, err := bus.NewConsumer(c, o, bus.NewRejects(c), reg, testLog(t))
			if err != nil {
				t.Fatal(err)
			}
			running(t, func(ctx context.Context) error { return consumer.Run(ctx, &k) })
			eventually(t, "the poll has seen the stream read to its end", func() bool {
				floor, first := consumer.Seen()
				return floor == 10 && first == 9
			})
			if got := metric(t, reg, "siptrace_stream_expired_unread_total"); got != 0 {
				t.Errorf("counted %v frames as lost, want 0", got)
			}
		})
	}
}

func TestConsumer_refusesADurableThatLosesEvents(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	if _, err := js.CreateConsumer(t.Context(), bus.StreamName, jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckNonePolicy}); err != nil {
		t.Fatal(err)
	}
	consumer := newConsumer(t, c, bus.ConsumerOptions{})
	if err := consumer.Run(t.Context(), &keeper{}); err == nil || !strings.Contains(err.Error(), "explicit") {
		t.Errorf("Run error = %v, want one that says that only explicit acknowledgement is safe", err)
	}
}

func TestConsumer_lagShows(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 500) // 50 frames
	stuck := keeper{fail: func([]trace.Event) error { return errors.New("database away") }}
	reg, _ := consume(t, c, bus.ConsumerOptions{Workers: 1, MaxAckPending: 10, Poll: 20 * time.Millisecond}, &stuck)
	eventually(t, "the lag is seen", func() bool {
		return metric(t, reg, "siptrace_consumer_unacked_frames") == 10 &&
			metric(t, reg, "siptrace_consumer_pending_frames") == 40 &&
			metric(t, reg, "siptrace_consumer_oldest_unread_seconds") > 0
	})
}

func TestNewConsumer_refusesWhatCannotWork(t *testing.T) {
	c := connect(t, "nats://127.0.0.1:1", "test")
	for name, o := range map[string]bus.ConsumerOptions{
		"no name":                  {},
		"dots in the name":         {Durable: "db.writer"},
		"more workers than frames": {Durable: "a", Workers: 4, MaxAckPending: 3},
		"no batch":                 {Durable: "a", BatchEvents: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := bus.NewConsumer(c, o, bus.NewRejects(c), nil, testLog(t)); err == nil {
				t.Error("no error")
			}
		})
	}
}

func BenchmarkBus(b *testing.B) {
	for _, compression := range []string{bus.CompressS2, bus.CompressNone} {
		b.Run(compression, func(b *testing.B) {
			s := startServer(b, b.TempDir(), "127.0.0.1:0")
			c := connect(b, s.ClientURL(), "bench")
			ensure(b, c, bus.StreamConfig{Duplicates: 100 * time.Millisecond})
			p, err := bus.NewPublisher(c, bus.PublisherOptions{Agent: "a", Compression: compression}, nil, testLog(b))
			if err != nil {
				b.Fatal(err)
			}
			running(b, p.Run)
			var arrived atomic.Int64
			count := trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
				arrived.Add(int64(len(events)))
				return nil
			})
			consume(b, connect(b, s.ClientURL(), "reader"), bus.ConsumerOptions{}, count)
			events := makeEvents(0, 1<<14)
			b.ReportAllocs()
			n := 0
			start := time.Now() // the clock of the benchmark does not see the rest arrive
			for b.Loop() {
				at := n % (len(events) - 32)
				for i := at; i < at+32; i++ { // as if captured now, else it would be the same event again
					events[i].Time = events[i].Time.Add(time.Second)
					events[i].Identify()
				}
				for rest := events[at : at+32]; len(rest) > 0; {
					got := p.Offer(rest)
					if rest = rest[got:]; got == 0 {
						time.Sleep(100 * time.Microsecond)
					}
				}
				n += 32
			}
			eventually(b, "all events arrive", func() bool { return arrived.Load() >= int64(n) })
			b.ReportMetric(float64(n)/time.Since(start).Seconds(), "events/s")
		})
	}
}

func TestConsumer_countsWhatItGivesBackAndTheStreamHasDiscarded(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 100) // frames 1 to 10
	holding := make(chan struct{})
	var once sync.Once
	stuck := trace.SinkFunc(func(ctx context.Context, _ []trace.Event) error {
		once.Do(func() { close(holding) })
		<-ctx.Done()
		return ctx.Err()
	})
	reg, stop := consume(t, c, bus.ConsumerOptions{Workers: 1, DrainTimeout: 50 * time.Millisecond, Poll: time.Hour}, stuck)
	<-holding
	held := durable(t, js).NumAckPending
	keepFrames(t, js, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got, want := metric(t, reg, "siptrace_stream_expired_unread_total"), float64(min(held, 9)); got < want {
		t.Errorf("%d frames were in hand and all but the last are gone: counted %v, want %v", held, got, want)
	}
}
