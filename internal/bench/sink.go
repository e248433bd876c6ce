package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/listen"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A SinkResult is what has arrived at [Sink].
type SinkResult struct {
	Kind   string        `json:"kind"` // "sink"
	Events uint64        `json:"events"`
	Took   time.Duration `json:"took_ns"` // from the first event to the last
}

// String tells people.
func (r *SinkResult) String() string {
	return fmt.Sprintf("got %s events in %v: %s a second\n", count(r.Events), r.Took.Round(time.Millisecond), rate(r.Events, r.Took))
}

// arrivals counts what arrives.
type arrivals struct {
	events      atomic.Uint64
	first, last atomic.Int64 // Unix nanoseconds
}

func (a *arrivals) Write(_ context.Context, events []trace.Event) error {
	now := time.Now().UnixNano()
	a.first.CompareAndSwap(0, now)
	a.last.Store(now)
	a.events.Add(uint64(len(events)))
	return nil
}

func (a *arrivals) result() *SinkResult {
	return &SinkResult{Kind: "sink", Events: a.events.Load(), Took: time.Duration(a.last.Load() - a.first.Load())}
}

// idle reports that something came, and nothing more for so long.
func (a *arrivals) idle(d time.Duration) bool {
	last := a.last.Load()
	return d > 0 && last != 0 && time.Since(time.Unix(0, last)) > d
}

// Sink receives HEP as a tap does and counts it. Every second it tells on say
// how many events came.
func Sink(ctx context.Context, o SinkOptions, say io.Writer) (*SinkResult, error) {
	if o.Duration <= 0 {
		return nil, errors.New("--duration is to be above nought")
	}
	in, err := listen.ParseInput(o.Listen)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(say, &slog.HandlerOptions{Level: slog.LevelWarn}))
	src, err := in.Listen(prometheus.NewRegistry(), log)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fmt.Fprintf(say, "listening at %s://%s\n", strings.ToLower(in.Scheme), src.Addr())

	ctx, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	var a arrivals
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx, &a) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for before := uint64(0); ; {
		select {
		case err := <-ended:
			return a.result(), err
		case <-tick.C:
		}
		now := a.events.Load()
		if now != before {
			fmt.Fprintf(say, "%s a second\n", count(now-before))
		}
		before = now
		if a.idle(o.Idle) {
			cancel()
		}
	}
}
