package forward

import (
	"sync"
	"time"
)

// throttle keeps a repeated warning from filling the log.
type throttle struct {
	mu    sync.Mutex
	next  time.Time
	count int
}

// throttleEvery is how often a warning is given.
const throttleEvery = time.Second

// allow reports whether to warn now, and how many warnings this one stands for.
func (t *throttle) allow(now time.Time) (count int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if now.Before(t.next) {
		return 0, false
	}
	count, t.count = t.count, 0
	t.next = now.Add(throttleEvery)
	return count, true
}
