package bus_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestShardOf(t *testing.T) {
	sip := func(callID string) trace.Event {
		return trace.Event{Type: trace.TypeSIP, CorrelationID: []byte("leg"), Payload: []byte("BYE sip:a@b SIP/2.0\r\ni: " + callID + "\r\n\r\n")}
	}
	hash := func(s string, n int) int {
		h := fnv.New32a()
		_, _ = h.Write([]byte(s))
		return int(h.Sum32() % uint32(n))
	}
	tests := []struct {
		name   string
		event  trace.Event
		shards int
		want   int
	}{
		{"one shard", sip("abc@example.org"), 1, 0},
		{"Call-ID", sip("abc@example.org"), 4, hash("abc@example.org", 4)},
		{"another Call-ID", sip("xyz"), 7, hash("xyz", 7)},
		{"SIP without Call-ID", trace.Event{Type: trace.TypeSIP, CorrelationID: []byte("leg"), Payload: []byte("BYE sip:a@b SIP/2.0\r\n\r\n")}, 5, hash("leg", 5)},
		{"log", trace.Event{Type: trace.TypeLog, CorrelationID: []byte("leg"), Payload: []byte("Call-ID: x\r\n")}, 5, hash("leg", 5)},
		{"nothing to go by", trace.Event{Type: trace.TypeLog, Payload: []byte("hello")}, 5, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := bus.ShardOf(&tt.event, tt.shards); got != tt.want {
				t.Errorf("ShardOf = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestEnsureStreams_spreadsEventsOverShards(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{Shards: 4})
	if n, err := c.Shards(t.Context()); n != 4 || err != nil {
		t.Errorf("Shards = %d, %v, want 4", n, err)
	}
	st, err := c.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Shards) != 4 || st.Shards[2].Name != "SIPTRACE_2" {
		t.Errorf("StreamStatus = %+v, want one of 4 streams", st)
	}
	js, _ := jetStream(t, s)
	stream, err := js.Stream(t.Context(), "SIPTRACE_3")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().Config.Subjects; len(got) != 1 || got[0] != "siptrace.v1.events.3.>" {
		t.Errorf("SIPTRACE_3 has the subjects %q", got)
	}

	for _, wanted := range []int{0, 4} {
		diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{Shards: wanted})
		if err != nil || len(diffs) > 0 {
			t.Errorf("with %d shards wanted: %v, %v, want no difference", wanted, diffs, err)
		}
	}
	diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{Shards: 2})
	if err != nil || len(diffs) != 1 || diffs[0].Have != "4" || diffs[0].Want != "2" {
		t.Errorf("with 2 shards wanted: %v, %v, want the 4 that there are", diffs, err)
	}
	if _, err := c.EnsureStreams(t.Context(), bus.StreamConfig{Shards: bus.MaxShards + 1}); err == nil {
		t.Error("no error for too many shards")
	}
}

func TestEnsureStreams_oneStreamStaysOne(t *testing.T) {
	_, c := bed(t)
	diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{Shards: 3})
	if err != nil || len(diffs) != 1 || diffs[0].Have != "1" || diffs[0].Want != "3" {
		t.Errorf("with 3 shards wanted: %v, %v, want the 1 that there is", diffs, err)
	}
	if n, err := c.Shards(t.Context()); n != 1 || err != nil {
		t.Errorf("Shards = %d, %v, want 1", n, err)
	}
}

func TestEnsureStreams_manyAtOnceAgree(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	var wg sync.WaitGroup
	wanted := func(i int) bus.StreamConfig { return bus.StreamConfig{Shards: []int{0, 2, 3}[i%3]} }
	conns := make([]*bus.Conn, 6)
	for i := range conns {
		conns[i] = connect(t, s.ClientURL(), "test")
		wg.Go(func() { ensure(t, conns[i], wanted(i)) })
	}
	wg.Wait()
	for i, c := range conns { // whoever was overtaken finds it settled
		ensure(t, c, wanted(i))
	}
	n, err := conns[0].Shards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err := conns[0].StreamStatus(t.Context())
	if err != nil || max(1, len(st.Shards)) != n {
		t.Errorf("%d shards agreed, streams %+v, %v", n, st, err)
	}
}

func TestEnsureStreams_theSingleStreamThatWasFirstWins(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	kv, err := js.KeyValue(t.Context(), bus.BucketName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "shards", []byte("3")); err != nil { // came too late
		t.Fatal(err)
	}
	diffs, err := c.EnsureStreams(t.Context(), bus.StreamConfig{Shards: 3})
	if err != nil || len(diffs) != 1 || diffs[0].Have != "1" {
		t.Errorf("EnsureStreams = %v, %v, want the 1 that there is", diffs, err)
	}
	if n, err := c.Shards(t.Context()); n != 1 || err != nil {
		t.Errorf("Shards = %d, %v, want 1", n, err)
	}
}

func TestShards_everyEventOnceAndACallInOneStream(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{Shards: 4})
	p, _, _ := publisher(t, c, bus.PublisherOptions{Shards: 4})
	var a, b keeper
	reg, stop := consume(t, c, bus.ConsumerOptions{Durable: "a", BatchEvents: 100, Linger: 5 * time.Millisecond, Poll: 20 * time.Millisecond}, &a)
	consume(t, c, bus.ConsumerOptions{Durable: "b", FilterSubjects: []string{"siptrace.v1.events.1.>", "siptrace.v1.events.3.test"}}, &b)

	const n = 8_000
	for first := 0; first < n/2; first += 100 {
		if got := p.Offer(makeEvents(first, 100)); got != 100 {
			t.Fatalf("Offer accepted %d events, want 100", got)
		}
	}
	if err := p.Write(t.Context(), makeEvents(n/2, n/2)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every event arrives", func() bool { return a.distinct() == n })
	if got := a.all(); got != n {
		t.Errorf("%d events arrived, want %d", got, n)
	}
	perShard := make([]int, 4)
	for _, e := range makeEvents(0, n) {
		perShard[bus.ShardOf(&e, 4)]++
	}
	eventually(t, "the shards of the filter arrive", func() bool { return b.distinct() == perShard[1]+perShard[3] })

	wantOnce(t, stored(t, c), n)
	for shard, want := range perShard {
		if want < n/8 {
			t.Errorf("shard %d gets %d of %d events", shard, want, n)
		}
		var k keeper
		tail := bus.NewTail(c, bus.TailOptions{All: true, Stop: true, Subject: "siptrace.v1.events." + strconv.Itoa(shard) + ".*"}, testLog(t))
		err := tail.Run(t.Context(), trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
			for i := range events {
				if got := bus.ShardOf(&events[i], 4); got != shard {
					return fmt.Errorf("an event of shard %d in shard %d", got, shard)
				}
			}
			return k.Write(ctx, events)
		}))
		if err != nil || k.distinct() != want {
			t.Errorf("shard %d holds %d events, want %d, %v", shard, k.distinct(), want, err)
		}
	}

	all, err := c.Consumers(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "a" {
		t.Errorf("Consumers = %+v, %v, want a and b", all, err)
	}
	eventually(t, "nothing is pending", func() bool {
		return metric(t, reg, "siptrace_consumer_pending_frames") == 0 && metric(t, reg, "siptrace_consumer_unacked_frames") == 0
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestShards_aPublisherThatLearnsThemLateSendsNothingToTheWrongOne(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{Shards: 3})
	d := &disk{}
	o := bus.PublisherOptions{AwaitShards: true, Spool: d, SpoolSync: time.Millisecond}
	p, reg, stop := publisher(t, c, o)
	p.Offer(makeEvents(0, 500))
	eventually(t, "they are on disk", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.kept) > 0
	})
	p.Offer(makeEvents(500, 500))
	written := make(chan error, 1)
	go func() { written <- p.Write(context.Background(), makeEvents(1000, 500)) }()
	eventually(t, "Write has queued its frames", func() bool { return metric(t, reg, "siptrace_bus_buffer_bytes") > 100_000 })
	running(t, func(ctx context.Context) error { return c.WatchShards(ctx, 1, p.SetShards) })
	if err := <-written; err != nil {
		t.Error(err)
	}
	p.Offer(makeEvents(1500, 500))
	eventually(t, "everything is in the streams", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") >= 2000
	})
	wantOnce(t, stored(t, c), 2000)
	if err := stop(); err != nil {
		t.Error(err)
	}
	wantShards(t, c, 3)
}

// wantShards checks that every event is in the stream of its call.
func wantShards(t *testing.T, c *bus.Conn, shards int) {
	t.Helper()
	for shard := range shards {
		tail := bus.NewTail(c, bus.TailOptions{All: true, Stop: true, Subject: fmt.Sprintf("siptrace.v1.events.%d.>", shard)}, testLog(t))
		err := tail.Run(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
			for i := range events {
				if got := bus.ShardOf(&events[i], shards); got != shard {
					return fmt.Errorf("an event of shard %d in shard %d", got, shard)
				}
			}
			return nil
		}))
		if err != nil {
			t.Error(err)
		}
	}
}

func TestWatchShards_tellsAChangeAndIsNotSilentForEver(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	told := make(chan int, 16)
	running(t, func(ctx context.Context) error {
		return c.WatchShards(ctx, 2, func(n int) { told <- n })
	})
	if got := <-told; got != 2 { // there is no bucket
		t.Errorf("told %d shards, want the 2 known before", got)
	}
	ensure(t, c, bus.StreamConfig{Shards: 5})
	for got := range told {
		if got == 5 {
			break
		}
	}
}

func TestConsumer_noMoreWritesAtATimeThanWorkers(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{Shards: 4})
	p, _, _ := publisher(t, c, bus.PublisherOptions{Shards: 4})
	if err := p.Write(t.Context(), makeEvents(0, 2000)); err != nil {
		t.Fatal(err)
	}
	var (
		k        keeper
		mu       sync.Mutex
		now, max int
	)
	consume(t, c, bus.ConsumerOptions{Workers: 1, BatchEvents: 50, Linger: time.Millisecond}, trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		mu.Lock()
		now++
		if now > max {
			max = now
		}
		mu.Unlock()
		err := k.Write(ctx, events)
		mu.Lock()
		now--
		mu.Unlock()
		return err
	}))
	eventually(t, "every event arrives", func() bool { return k.distinct() == 2000 })
	mu.Lock()
	defer mu.Unlock()
	if max != 1 {
		t.Errorf("%d writes at a time, want 1", max)
	}
}

func BenchmarkOffer_shards(b *testing.B) {
	for _, shards := range []int{1, 4} {
		b.Run(strconv.Itoa(shards), func(b *testing.B) {
			c := connect(b, "nats://127.0.0.1:1", "bench")
			p, err := bus.NewPublisher(c, bus.PublisherOptions{Agent: "a", BufferBytes: 1 << 50, Shards: shards}, prometheus.NewRegistry(), testLog(b))
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
		})
	}
}
