package bus_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// shardedBed is a server with events in four streams, and one connection.
func shardedBed(t *testing.T, dir string, events int) (*bus.Conn, func()) {
	t.Helper()
	s := startServer(t, dir, freeAddr(t))
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{Shards: 4})
	p, _, stop := publisher(t, c, bus.PublisherOptions{Shards: 4, FrameEvents: 10})
	for first := 0; first < events; first += 100 {
		if err := p.Write(t.Context(), makeEvents(first, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return c, s.Shutdown
}

func TestStretches_ofSeveralStreams(t *testing.T) {
	c, _ := shardedBed(t, t.TempDir(), 1000)
	all := stretches(t, c, bus.ReplayRange{})
	if len(all) != 4 {
		t.Fatalf("%d stretches, want 4", len(all))
	}
	for shard, s := range all {
		if s.Shard != shard || s.Stream != "SIPTRACE_"+strconv.Itoa(shard) || s.First != 1 || s.Frames() < 10 || s.Oldest.IsZero() || s.Newest.Before(s.Oldest) {
			t.Errorf("shard %d: %+v", shard, s)
		}
	}
	one := stretch(t, c, bus.ReplayRange{Shard: new(2), First: 3, Last: 5})
	if one.Stream != "SIPTRACE_2" || one.First != 3 || one.Last != 5 {
		t.Errorf("of shard 2: %+v", one)
	}
	for _, s := range stretches(t, c, bus.ReplayRange{Behind: map[string]uint64{"SIPTRACE_1": 4}}) {
		if want := map[int]uint64{1: 5}[s.Shard]; s.First != max(1, want) || s.Discarded != 0 {
			t.Errorf("behind frame 4 of shard 1: %+v", s)
		}
	}
	for want, r := range map[error]bus.ReplayRange{
		bus.ErrSharded: {First: 3},
		bus.ErrNoShard: {Shard: new(4)},
	} {
		if _, err := c.Stretches(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("Stretches(%+v) = %v, want %v", r, err, want)
		}
	}
}

func TestReplay_ofSeveralStreamsIsInTheOrderOfStoring(t *testing.T) {
	c, _ := shardedBed(t, t.TempDir(), 2000)
	var k keeper
	var w told
	o := bus.ReplayOptions{BatchEvents: 1, Written: w.written}
	if err := bus.NewReplay(c, stretches(t, c, bus.ReplayRange{}), o, testLog(t)).Run(t.Context(), &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 2000)
	var last time.Time
	changes, shard, done := 0, -1, make([]uint64, 4)
	for i, p := range w.portions {
		if p.Stored.Before(last) {
			t.Errorf("portion %d was stored at %v, the one before at %v", i, p.Stored, last)
		}
		last = p.Stored
		for s := range done {
			if p.Done[s] == done[s]+1 && s != shard {
				changes, shard = changes+1, s
			}
		}
		done = p.Done
	}
	if changes < 20 {
		t.Errorf("the streams took turns %d times: they were not read side by side", changes)
	}
}

func TestReplay_ofSeveralStreamsGoesOnWhereItWas(t *testing.T) {
	c, _ := shardedBed(t, t.TempDir(), 2000)
	ctx, cancel := context.WithCancel(t.Context())
	var k keeper
	var w told
	sink := trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		if k.all() > 700 {
			cancel()
		}
		return k.Write(context.Background(), events)
	})
	o := bus.ReplayOptions{BatchEvents: 100, Written: w.written}
	if err := bus.NewReplay(c, stretches(t, c, bus.ReplayRange{}), o, testLog(t)).Run(ctx, sink); err != nil {
		t.Fatal(err)
	}
	if n := k.all(); n >= 2000 {
		t.Fatalf("%d events written before it was interrupted", n)
	}
	behind := make(map[string]uint64)
	for shard, seq := range w.portions[len(w.portions)-1].Done {
		behind["SIPTRACE_"+strconv.Itoa(shard)] = seq
	}
	rest := stretches(t, c, bus.ReplayRange{Behind: behind})
	if err := bus.NewReplay(c, rest, bus.ReplayOptions{}, testLog(t)).Run(t.Context(), &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 2000)
}

func TestReplay_ofSeveralStreamsGoesOnWhenTheServerIsBack(t *testing.T) {
	dir := t.TempDir()
	c, shutdown := shardedBed(t, dir, 4000)
	addr := c.URL()[len("nats://"):]
	var k keeper
	writes := 0
	sink := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		if writes++; writes == 5 {
			shutdown()
			startServer(t, dir, addr)
		}
		return k.Write(ctx, events)
	})
	if err := bus.NewReplay(c, stretches(t, c, bus.ReplayRange{}), bus.ReplayOptions{BatchEvents: 100}, testLog(t)).Run(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 4000)
}

func TestReplay_ofSeveralStreamsCountsWhatIsDiscarded(t *testing.T) {
	c, _ := shardedBed(t, t.TempDir(), 2000)
	all := stretches(t, c, bus.ReplayRange{})
	gone := uint64(0)
	for shard, upTo := range map[int]uint64{1: 3, 2: all[2].Last} {
		s, err := jetstreamOf(t, c).Stream(t.Context(), all[shard].Stream)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(upTo+1)); err != nil {
			t.Fatal(err)
		}
		gone += upTo
	}
	var k keeper
	var w told
	if err := bus.NewReplay(c, all, bus.ReplayOptions{BatchEvents: 100, Written: w.written}, testLog(t)).Run(t.Context(), &k); err != nil {
		t.Fatal(err)
	}
	discarded, frames := uint64(0), 0
	for _, p := range w.portions {
		discarded += p.Discarded
		frames += p.Frames
	}
	wanted := uint64(0)
	for i, s := range all {
		wanted += s.Frames()
		if done := w.portions[len(w.portions)-1].Done[i]; done != s.Last {
			t.Errorf("shard %d is done with up to %d, want %d", i, done, s.Last)
		}
	}
	if discarded != gone || uint64(frames)+gone != wanted {
		t.Errorf("%d frames and %d discarded, want %d and %d", frames, discarded, wanted-gone, gone)
	}
}
