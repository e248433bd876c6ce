package bench

import (
	"math/bits"
	"time"
)

// A pace is a steady rate from a moment on: event n, counted from 0, is due at
// start + n/rate. It does not drift, however late anybody looks at it.
type pace struct {
	start time.Time
	rate  int // events a second
}

// at is when event n is due, to the nanosecond above.
func (p pace) at(n uint64) time.Time {
	hi, lo := bits.Mul64(n, uint64(time.Second))
	lo, carry := bits.Add64(lo, uint64(p.rate-1), 0)
	ns, _ := bits.Div64(hi+carry, lo, uint64(p.rate))
	return p.start.Add(time.Duration(ns))
}

// due is how many events are due by now.
func (p pace) due(now time.Time) uint64 {
	elapsed := now.Sub(p.start)
	if elapsed < 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(elapsed), uint64(p.rate))
	n, _ := bits.Div64(hi, lo, uint64(time.Second))
	return n + 1
}

// total is how many events the pace has in d.
func (p pace) total(d time.Duration) uint64 {
	hi, lo := bits.Mul64(uint64(d), uint64(p.rate))
	n, _ := bits.Div64(hi, lo, uint64(time.Second))
	return n
}
