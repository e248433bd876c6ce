package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// A SendResult is what [Send] has sent.
type SendResult struct {
	Kind string `json:"kind"` // "send"
	Rate int    `json:"rate"`
	Load
	CPU float64 `json:"cpu_us_per_event"`
}

// Send sends traffic at a rate. Interrupted, it says what was sent until then.
func Send(ctx context.Context, o SendOptions) (*SendResult, error) {
	if o.Rate < 1 || o.Duration <= 0 {
		return nil, errors.New("nothing to send: --rate and --duration are to be above nought")
	}
	traffic, err := NewTraffic(uint64(time.Now().UnixNano()), callsAtOnce, "bench")
	if err != nil {
		return nil, err
	}
	to, err := dial(o.To)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	before, _ := hostProc().own(os.Getpid()) // elsewhere than on Linux nobody knows
	load, err := run(ctx, to, traffic, o.Rate, o.Duration)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%s: %w", o.To, err)
	}
	after, _ := hostProc().own(os.Getpid())
	return &SendResult{Kind: "send", Rate: o.Rate, Load: load, CPU: cost("", after-before, load.Sent).PerEvent}, nil
}

// String tells people.
func (r *SendResult) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sent %s events in %v: %s a second, at most %v late, %.1f µs of CPU each\n", count(r.Sent),
		r.Took.Round(time.Millisecond), rate(r.Sent, r.Took), r.Latest.Round(10*time.Microsecond), r.CPU)
	return b.String()
}
