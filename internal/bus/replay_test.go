package bus_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// stretch returns what there is of a range in the one stream there is.
func stretch(t *testing.T, c *bus.Conn, r bus.ReplayRange) bus.Stretch {
	t.Helper()
	all := stretches(t, c, r)
	if len(all) != 1 {
		t.Fatalf("stretches of %d streams, want one", len(all))
	}
	return all[0]
}

// stretches returns what there is of a range in each stream.
func stretches(t *testing.T, c *bus.Conn, r bus.ReplayRange) []bus.Stretch {
	t.Helper()
	all, err := c.Stretches(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStretch_isWhatThereIsOfARange(t *testing.T) {
	_, c := bed(t)
	if s := stretch(t, c, bus.ReplayRange{}); s.Frames() != 0 {
		t.Errorf("an empty stream has the stretch %+v", s)
	}
	before := time.Now()
	publish(t, c, 0, 100) // frames 1 to 10
	between := time.Now()
	publish(t, c, 100, 100) // frames 11 to 20
	after := time.Now()
	tests := []struct {
		name        string
		r           bus.ReplayRange
		first, last uint64
	}{
		{"all", bus.ReplayRange{}, 1, 20},
		{"by sequence", bus.ReplayRange{First: 5, Last: 7}, 5, 7},
		{"beyond the end", bus.ReplayRange{First: 15, Last: 70}, 15, 20},
		{"since", bus.ReplayRange{Since: between}, 11, 20},
		{"until", bus.ReplayRange{Until: between}, 1, 10},
		{"since long ago", bus.ReplayRange{Since: before.Add(-time.Hour), Until: after.Add(time.Hour)}, 1, 20},
		{"both", bus.ReplayRange{Since: between, First: 14, Until: after, Last: 16}, 14, 16},
	}
	for _, tt := range tests {
		if s := stretch(t, c, tt.r); s.First != tt.first || s.Last != tt.last || s.Discarded != 0 || s.Created.IsZero() {
			t.Errorf("%s: %+v, want %d to %d", tt.name, s, tt.first, tt.last)
		}
	}
	for _, r := range []bus.ReplayRange{{First: 21}, {Since: after}, {Until: before}, {First: 7, Last: 5}} {
		if s := stretch(t, c, r); s.Frames() != 0 {
			t.Errorf("%+v: %d frames in %+v, want none", r, s.Frames(), s)
		}
	}
	purge(t, c, 8)
	if s := stretch(t, c, bus.ReplayRange{First: 3}); s.First != 9 || s.Last != 20 || s.Discarded != 6 {
		t.Errorf("%+v, want 9 to 20 and 6 discarded", s)
	}
	purge(t, c, 20)
	if s := stretch(t, c, bus.ReplayRange{First: 3}); s.Frames() != 0 || s.Discarded != 18 {
		t.Errorf("%+v, want nothing left and 18 discarded", s)
	}
}

// purge discards every frame up to last, as the limits of the stream do.
func purge(t *testing.T, c *bus.Conn, last uint64) {
	t.Helper()
	s, err := jetstreamOf(t, c).Stream(t.Context(), bus.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(last+1)); err != nil {
		t.Fatal(err)
	}
}

// jetstreamOf is a connection of its own to the server of c.
func jetstreamOf(t *testing.T, c *bus.Conn) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// told gathers what Written is told.
type told struct{ portions []bus.Portion }

func (w *told) written(_ context.Context, p bus.Portion) error {
	w.portions = append(w.portions, p)
	return nil
}

func replay(t *testing.T, c *bus.Conn, s bus.Stretch, o bus.ReplayOptions, sink trace.Sink) error {
	t.Helper()
	return bus.NewReplay(c, []bus.Stretch{s}, o, testLog(t)).Run(t.Context(), sink)
}

func TestReplay_writesTheStretchInPortions(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 200) // 20 frames of 10
	var k keeper
	var w told
	s := stretch(t, c, bus.ReplayRange{First: 3, Last: 18})
	if err := replay(t, c, s, bus.ReplayOptions{BatchEvents: 50, Written: w.written}, &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 20, 180)
	want := []string{"[7] 5 frames 50 events", "[12] 5 frames 50 events", "[17] 5 frames 50 events", "[18] 1 frames 10 events"}
	if len(w.portions) != len(want) {
		t.Fatalf("%d portions, want %d: %+v", len(w.portions), len(want), w.portions)
	}
	for i, p := range w.portions {
		if got := fmt.Sprintf("%d %d frames %d events", p.Done, p.Frames, p.Events); got != want[i] || p.Stored.IsZero() || p.Discarded+uint64(p.Unread) != 0 {
			t.Errorf("portion %d is %s (%+v), want %s", i, got, p, want[i])
		}
	}
	if st, err := c.Consumers(t.Context()); err != nil || len(st) != 0 {
		t.Errorf("durable consumers %v, %v after a replay, want none", st, err)
	}
}

func TestReplay_ofNothingWritesNothing(t *testing.T) {
	_, c := bed(t)
	var k keeper
	if err := replay(t, c, stretch(t, c, bus.ReplayRange{}), bus.ReplayOptions{}, &k); err != nil || k.calls != 0 {
		t.Errorf("%d writes, %v", k.calls, err)
	}
}

func TestReplay_endsWithTheSinksError(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 100)
	broken := errors.New("broken")
	k := keeper{fail: func([]trace.Event) error { return broken }}
	var w told
	if err := replay(t, c, stretch(t, c, bus.ReplayRange{}), bus.ReplayOptions{Written: w.written}, &k); !errors.Is(err, broken) || len(w.portions) != 0 {
		t.Errorf("Run = %v, %d portions told; want %v and none", err, len(w.portions), broken)
	}
	var good keeper
	refuse := func(context.Context, bus.Portion) error { return broken }
	if err := replay(t, c, stretch(t, c, bus.ReplayRange{}), bus.ReplayOptions{Written: refuse}, &good); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want what Written returned", err)
	}
}

func TestReplay_goesOnWhenTheServerIsBack(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	s := startServer(t, dir, addr)
	c := connect(t, s.ClientURL(), "test")
	ensure(t, c, bus.StreamConfig{})
	publish(t, c, 0, 2000)
	var k keeper
	var restart = func() {
		s.Shutdown()
		startServer(t, dir, addr)
	}
	writes := 0
	sink := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		if writes++; writes == 3 {
			restart()
		}
		return k.Write(ctx, events)
	})
	if err := replay(t, c, stretch(t, c, bus.ReplayRange{}), bus.ReplayOptions{BatchEvents: 100}, sink); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 2000)
}

func TestReplay_tellsWhatIsNoFrameAndWhatIsGone(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 50) // frames 1 to 5
	js := jetstreamOf(t, c)
	if _, err := js.Publish(t.Context(), bus.EventsSubject+".0.x", []byte("noise")); err != nil { // 6
		t.Fatal(err)
	}
	publish(t, c, 50, 50) // 7 to 11
	s := stretch(t, c, bus.ReplayRange{})
	purge(t, c, 2)
	var k keeper
	var w told
	if err := replay(t, c, s, bus.ReplayOptions{Written: w.written}, &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 20, 100)
	if p := w.portions[0]; len(w.portions) != 1 || p.Unread != 1 || p.Discarded != 2 || p.Done[0] != 11 || p.Frames != 8 {
		t.Errorf("told %+v, want 8 frames up to 11, 1 unread and 2 discarded", w.portions)
	}
}

// A server that allows large messages may hold some that a reader must ask more
// bytes for than it would otherwise.
func TestReplay_andTailGoOnBehindAMessageOfManyMegabytes(t *testing.T) {
	c := connect(t, sizedServer(t, 32<<20), "test")
	ensure(t, c, bus.StreamConfig{})
	publish(t, c, 0, 50)                                                                                              // frames 1 to 5
	if _, err := jetstreamOf(t, c).Publish(t.Context(), bus.EventsSubject+".0.x", make([]byte, 20<<20)); err != nil { // 6
		t.Fatal(err)
	}
	publish(t, c, 50, 50) // 7 to 11
	var k keeper
	var w told
	if err := replay(t, c, stretch(t, c, bus.ReplayRange{}), bus.ReplayOptions{Written: w.written}, &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 100)
	if p := w.portions[0]; len(w.portions) != 1 || p.Unread != 1 || p.Frames != 10 {
		t.Errorf("told %+v, want 10 frames and 1 unread", w.portions)
	}
	var seen keeper
	if err := bus.NewTail(c, bus.TailOptions{All: true, Stop: true}, testLog(t)).Run(t.Context(), &seen); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &seen, 0, 100)
}

func TestReplay_endsWhenTheRestIsDiscarded(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 100) // 1 to 10
	s := stretch(t, c, bus.ReplayRange{})
	purge(t, c, 10)
	publish(t, c, 100, 10) // 11: behind the stretch
	var k keeper
	var w told
	if err := replay(t, c, s, bus.ReplayOptions{Written: w.written}, &k); err != nil {
		t.Fatal(err)
	}
	if len(w.portions) != 1 || w.portions[0].Discarded != 10 || w.portions[0].Done[0] != 10 || k.calls != 0 {
		t.Errorf("told %+v after %d writes, want 10 discarded and nothing written", w.portions, k.calls)
	}
}

func TestReplay_stopsWithTheContext(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 200)
	ctx, cancel := context.WithCancel(t.Context())
	var k keeper
	var w told
	sink := trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		cancel()
		return k.Write(context.Background(), events)
	})
	r := bus.NewReplay(c, stretches(t, c, bus.ReplayRange{}), bus.ReplayOptions{BatchEvents: 10, Written: w.written}, testLog(t))
	if err := r.Run(ctx, sink); err != nil {
		t.Fatal(err)
	}
	if len(w.portions) != 1 || w.portions[0].Done[0] != 1 {
		t.Errorf("told %+v, want the one frame that was written when it ended", w.portions)
	}
	rest := stretch(t, c, bus.ReplayRange{First: w.portions[0].Done[0] + 1})
	if err := replay(t, c, rest, bus.ReplayOptions{}, &k); err != nil {
		t.Fatal(err)
	}
	wantSerials(t, &k, 0, 200)
}

func TestReplayPositions(t *testing.T) {
	_, c := bed(t)
	positions := bus.NewReplayPositions(c)
	p, err := positions.Get(t.Context(), "nightly")
	if err != nil || len(p.Places) != 0 || p.Revision != 0 {
		t.Fatalf("Get of an unknown name = %+v, %v", p, err)
	}
	at := func(seqs ...uint64) (places []bus.ReplayPlace) {
		for i, seq := range seqs {
			places = append(places, bus.ReplayPlace{Stream: fmt.Sprintf("SIPTRACE_%d", i), Created: time.Unix(1, 0).UTC(), Seq: seq})
		}
		return places
	}
	p.Places, p.Owner, p.What, p.When = at(17, 3), "a", "everything", time.Now().UTC()
	if p, err = positions.Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	again, err := positions.Get(t.Context(), "nightly")
	if err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("Get = %+v, %v; want %+v", again, err, p)
	}
	p.Places = at(17, 4)
	if p, err = positions.Put(t.Context(), p); err != nil {
		t.Fatal(err)
	}

	again.Owner, again.Places = "b", at(17, 3)
	if _, err := positions.Put(t.Context(), again); !errors.Is(err, bus.ErrReplayRunning) {
		t.Errorf("Put of another run = %v, want ErrReplayRunning", err)
	}
	lost := p
	lost.Revision, lost.Places = 1, at(19, 4) // the answer to what is there now was lost
	if lost, err = positions.Put(t.Context(), lost); err != nil {
		t.Errorf("Put behind an answer that was lost: %v", err)
	}
	if got, err := positions.Get(t.Context(), "nightly"); err != nil || !reflect.DeepEqual(got.Places, at(19, 4)) || got.Revision != lost.Revision {
		t.Errorf("Get = %+v, %v; want frame 19", got, err)
	}

	kv, err := jetstreamOf(t, c).KeyValue(t.Context(), bus.BucketName)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "replay.nightly"); err != nil {
		t.Fatal(err)
	}
	if p, err = positions.Get(t.Context(), "nightly"); err != nil || p.Revision != 0 {
		t.Fatalf("Get of what was deleted = %+v, %v", p, err)
	}
	if _, err := positions.Put(t.Context(), p); err != nil {
		t.Errorf("Put after it was deleted: %v", err)
	}
	for _, bad := range []string{"", "a b", "a.b", ">"} {
		if _, err := positions.Get(t.Context(), bad); err == nil {
			t.Errorf("name %q accepted", bad)
		}
	}
}

func TestReplayPositions_aBucketThatIsGoneIsNotWaitedFor(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	if err := js.DeleteKeyValue(t.Context(), bus.BucketName); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), quick)
	defer cancel()
	if _, err := bus.NewReplayPositions(c).Put(ctx, bus.ReplayPosition{Name: "x"}); !errors.Is(err, jetstream.ErrBucketNotFound) || ctx.Err() != nil {
		t.Errorf("Put = %v, want %v at once", err, jetstream.ErrBucketNotFound)
	}
}
