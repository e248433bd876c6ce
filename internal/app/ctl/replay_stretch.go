package ctl

import (
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// StretchFlags say which part of the stream is replayed. The capture time of
// an event is not the time at which it was stored: a tap may have kept it while
// NATS was away, and its clock may be wrong. So more of the stream is read than
// the range is long.
type StretchFlags struct {
	Since   app.Duration `help:"Only what was captured within this time: 15m, 1h30m, 7d." env:"-" placeholder:"DURATION" xor:"range"`
	From    string       `help:"Only what was captured then or later: 2026-11-22T08:00:00Z, \"2026-11-22 08:00\", 08:00 (today); without a zone it is local time." env:"-" placeholder:"TIME" xor:"range"`
	ToTime  string       `help:"Only what was captured before, as --from." env:"-" placeholder:"TIME"`
	Slack   app.Duration `help:"How much earlier and later than the range frames are looked at by the time they were stored: as long as NATS or a tap may have been away." default:"10m" env:"-" placeholder:"DURATION"`
	FromSeq uint64       `help:"Begin with this frame of the stream." env:"-" placeholder:"N"`
	ToSeq   uint64       `help:"End with this frame of the stream." env:"-" placeholder:"N"`
}

// bounds are the ends of the range in capture time; zero is without bound.
func (f *StretchFlags) bounds(now time.Time) (from, to time.Time, err error) {
	if f.Since > 0 {
		from = now.Add(-time.Duration(f.Since))
	}
	if f.From != "" {
		if from, err = parseTime(f.From, now); err != nil {
			return from, to, err
		}
	}
	if f.ToTime != "" {
		if to, err = parseTime(f.ToTime, now); err != nil {
			return from, to, err
		}
		if !to.After(from) {
			return from, to, app.Usagef("the range ends (%s) before it begins (%s)", to.Format(time.DateTime), from.Format(time.DateTime))
		}
	}
	if f.ToSeq > 0 && f.ToSeq < f.FromSeq {
		return from, to, app.Usagef("--to-seq %d is before --from-seq %d", f.ToSeq, f.FromSeq)
	}
	return from, to, nil
}

// frames is what is looked at of the stream for a range of capture time.
func (f *StretchFlags) frames(from, to time.Time) bus.ReplayRange {
	r := bus.ReplayRange{First: f.FromSeq, Last: f.ToSeq}
	if !from.IsZero() {
		r.Since = from.Add(-time.Duration(f.Slack))
	}
	if !to.IsZero() {
		r.Until = to.Add(time.Duration(f.Slack))
	}
	return r
}
