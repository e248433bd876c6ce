package ctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	firstPause = 200 * time.Millisecond
	longPause  = 5 * time.Second
	lastWrite  = 10 * time.Second // how long a Write goes on when the command has to end
)

// An insistent sink writes again what was not written, for a while, and keeps
// count of what was refused for good. A Write that has begun goes on for a
// moment when its context ends, so that it is done or not done.
type insistent struct {
	out      trace.Sink
	patience time.Duration
	say      func(format string, args ...any) // to the person who waits

	written int
	refused map[string]*refusal // by reason
}

// A refusal is what was refused for one reason.
type refusal struct {
	count int
	words string // the far side's, of the first
}

func newInsistent(out trace.Sink, patience time.Duration, say func(format string, args ...any)) *insistent {
	return &insistent{out: out, patience: patience, say: say, refused: make(map[string]*refusal)}
}

// Write is what [trace.Sink] promises, but that refused events are no error.
func (s *insistent) Write(ctx context.Context, events []trace.Event) error {
	rejected, err := s.try(ctx, events)
	if err != nil {
		return err
	}
	s.written += len(events) - len(rejected)
	for _, r := range rejected {
		s.refuse(r)
	}
	return nil
}

func (s *insistent) refuse(r trace.Rejection) {
	known := s.refused[r.Reason]
	if known == nil {
		known = new(refusal)
		if r.Err != nil {
			known.words = r.Err.Error()
		}
		s.refused[r.Reason] = known
	}
	known.count++
}

// try writes events until they are written, or refused.
func (s *insistent) try(ctx context.Context, events []trace.Event) (trace.Rejected, error) {
	longer, cancel := outlive(ctx, lastWrite)
	defer cancel()
	began, told := time.Now(), time.Time{}
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := s.out.Write(longer, events)
		var rejected trace.Rejected
		switch {
		case err == nil:
			return nil, nil
		case errors.As(err, &rejected):
			return rejected, nil
		case ctx.Err() != nil, errors.Is(err, trace.ErrPermanent):
			return nil, err
		case time.Since(began)+pause > s.patience:
			return nil, fmt.Errorf("%w; given up after %v, --retry waits longer", err, s.patience)
		}
		if time.Since(told) > longPause {
			s.say("waiting: %v", err)
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// refusals returns how many events were refused, and the reasons in words.
func (s *insistent) refusals() (n int, reasons string) {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(s.refused)) {
		r := s.refused[reason]
		n += r.count
		text := fmt.Sprintf("%s %s", count(r.count), reason)
		if r.words != "" {
			text += " (" + r.words + ")"
		}
		list = append(list, text)
	}
	return n, strings.Join(list, "; ")
}

// outlive returns a context that ends d after ctx does.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}
