package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/time/rate"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Rate is a number of events a second; 0 is without limit.
type Rate float64

// UnmarshalText reads "500/s", "500", "30000/m" or "0.5/s".
func (r *Rate) UnmarshalText(text []byte) error {
	number, per, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseFloat(number, 64)
	switch per {
	case "", "s":
	case "m":
		n /= 60
	case "h":
		n /= 3600
	default:
		err = strconv.ErrSyntax
	}
	if err != nil || n < 0 || n > 1e9 || n != n {
		return fmt.Errorf("rate %q: use 500/s, 30000/m or 500", text)
	}
	*r = Rate(n)
	return nil
}

// String writes what UnmarshalText reads.
func (r Rate) String() string { return strconv.FormatFloat(float64(r), 'g', -1, 64) + "/s" }

// paced is a sink that hands on events no faster than at a rate, in parts of a
// twentieth of a second.
type paced struct {
	limiter *rate.Limiter
	out     trace.Sink
}

// pace returns out itself where there is no limit.
func (r Rate) pace(out trace.Sink) trace.Sink {
	if r == 0 {
		return out
	}
	return &paced{rate.NewLimiter(rate.Limit(r), r.portion()), out}
}

// portion is how many events are handed on together.
func (r Rate) portion() int { return max(1, int(r/20)) }

// Write is what [trace.Sink] promises. The end of ctx ends the waiting.
func (p *paced) Write(ctx context.Context, events []trace.Event) error {
	for len(events) > 0 {
		n := min(len(events), p.limiter.Burst())
		if err := p.limiter.WaitN(ctx, n); err != nil {
			return err
		}
		if err := p.out.Write(ctx, events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}
