package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func tail(t *testing.T, c *bus.Conn, o bus.TailOptions) (*keeper, func() error) {
	t.Helper()
	k := &keeper{}
	return k, running(t, func(ctx context.Context) error { return bus.NewTail(c, o, testLog(t)).Run(ctx, k) })
}

// wantSerials checks that exactly the events from first to last-1 were shown.
func wantSerials(t *testing.T, k *keeper, first, last int) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.seen) != last-first {
		t.Errorf("%d events shown, want %d", len(k.seen), last-first)
	}
	for i := first; i < last; i++ {
		if k.seen[i] != 1 {
			t.Errorf("event %d shown %d times, want once", i, k.seen[i])
			return
		}
	}
}

func TestTail_beginsWhereItIsTold(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 100) // frames 1 to 10
	between := time.Now()
	publish(t, c, 100, 100) // frames 11 to 20
	tests := []struct {
		name        string
		o           bus.TailOptions
		first, last int
	}{
		{"all", bus.TailOptions{All: true}, 0, 200},
		{"a frame", bus.TailOptions{Seq: 16}, 150, 200},
		{"a time", bus.TailOptions{Since: between}, 100, 200},
		{"now", bus.TailOptions{}, 0, 0},
		{"another agent", bus.TailOptions{All: true, Subject: "siptrace.v1.events.*.nobody"}, 0, 0},
		{"this agent", bus.TailOptions{All: true, Subject: "siptrace.v1.events.*.test"}, 0, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Stop = true
			var k keeper
			if err := bus.NewTail(c, tt.o, testLog(t)).Run(t.Context(), &k); err != nil {
				t.Fatal(err)
			}
			wantSerials(t, &k, tt.first, tt.last)
		})
	}
}

func TestTail_followsWithoutTouching(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 100)
	k, stop := tail(t, c, bus.TailOptions{})
	eventually(t, "the tail looks on", func() bool {
		st, err := js.Stream(t.Context(), bus.StreamName)
		return err == nil && st.CachedInfo().State.Consumers == 1
	})
	publish(t, c, 100, 100)
	eventually(t, "the new events are shown", func() bool { return k.distinct() == 100 })
	if all, err := c.Consumers(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("Consumers = %v, %v, want none: a tail is no worker", all, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	wantSerials(t, k, 100, 200)
}

func TestTail_goesOnAfterARestart(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	s := startServer(t, dir, addr)
	c := connect(t, "nats://"+addr, "test")
	ensure(t, c, bus.StreamConfig{})
	k, _ := tail(t, c, bus.TailOptions{All: true})
	publish(t, c, 0, 100)
	eventually(t, "the first are shown", func() bool { return k.distinct() == 100 })
	s.Shutdown()
	startServer(t, dir, addr)
	eventually(t, "connected again", func() bool { return c.Check(t.Context()) == nil })
	publish(t, c, 100, 100)
	eventually(t, "the others are shown", func() bool { return k.distinct() == 200 })
	wantSerials(t, k, 0, 200)
}

func TestTail_waitsForServerAndStream(t *testing.T) {
	addr := freeAddr(t)
	c := connect(t, "nats://"+addr, "test")
	k, _ := tail(t, c, bus.TailOptions{All: true})
	startServer(t, t.TempDir(), addr)
	ensure(t, c, bus.StreamConfig{})
	publish(t, c, 0, 10)
	eventually(t, "the events are shown", func() bool { return k.distinct() == 10 })
}

func TestTail_endsWithTheErrorOfItsSink(t *testing.T) {
	_, c := bed(t)
	publish(t, c, 0, 10)
	broken := errors.New("broken pipe")
	sink := trace.SinkFunc(func(context.Context, []trace.Event) error { return broken })
	if err := bus.NewTail(c, bus.TailOptions{All: true}, testLog(t)).Run(t.Context(), sink); !errors.Is(err, broken) {
		t.Errorf("Run error = %v, want %v", err, broken)
	}
}

func TestTail_leavesOutWhatIsNoFrame(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 10)
	if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "siptrace.v1.events.0.stranger", Data: []byte("no frame")}); err != nil {
		t.Fatal(err)
	}
	publish(t, c, 10, 10)
	wantOnce(t, stored(t, c), 20)
}

func TestTail_goesOnInAStreamMadeAnew(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	publish(t, c, 0, 100)
	var k keeper
	running(t, func(ctx context.Context) error {
		return bus.NewTail(c, bus.TailOptions{All: true}, testLog(t)).Run(ctx, &k)
	})
	eventually(t, "what is there is shown", func() bool { return k.distinct() == 100 })
	if err := js.DeleteStream(t.Context(), bus.StreamName); err != nil {
		t.Fatal(err)
	}
	ensure(t, c, bus.StreamConfig{})
	publish(t, c, 100, 50)
	eventually(t, "what is new is shown", func() bool { return k.distinct() == 150 })
}
