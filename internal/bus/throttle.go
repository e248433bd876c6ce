package bus

import (
	"sync"
	"time"
)

// throttle keeps a repeated warning from filling the log: allow says yes at
// most once in every, and then how many were asked for since the last yes.
type throttle struct {
	every time.Duration

	mu    sync.Mutex
	next  time.Time
	count int
}

func (t *throttle) allow(now time.Time) (count int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if now.Before(t.next) {
		return 0, false
	}
	count, t.count = t.count, 0
	t.next = now.Add(t.every)
	return count, true
}
