package forward

import (
	"errors"
	"sync"
	"time"
)

// routes are the sinks of the destinations that events named of late, no more
// than maxRoutes of them.
type routes struct {
	open func(Destination) (Sink, error)

	mu   sync.Mutex
	to   map[Destination]*route
	over bool // closed
}

// route is the way to one destination. Who has taken it may read and write
// what tells how it goes.
type route struct {
	d    Destination
	sink Sink

	inUse int
	used  time.Time

	since time.Time // it has been failing since; zero is not
	again time.Time // when it is worth another attempt
	err   error     // the last failure
}

// retryAfter is how long a destination that is given up is left alone.
const retryAfter = 5 * time.Second

func newRoutes(open func(Destination) (Sink, error)) *routes {
	return &routes{open: open, to: make(map[Destination]*route)}
}

// take returns the route to d, and keeps it open until it is given back.
// Opening one more than there may be closes the one that was idle longest.
func (rs *routes) take(d Destination) (*route, error) {
	r, victim, err := rs.find(d)
	if victim != nil {
		_ = victim.sink.Close()
	}
	return r, err
}

// find finds or opens the route to d, and returns the route to close for it.
func (rs *routes) find(d Destination) (r, victim *route, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.over {
		return nil, nil, errClosed
	}
	if r := rs.to[d]; r != nil {
		r.inUse++
		return r, nil, nil
	}
	sink, err := rs.open(d)
	if err != nil {
		return nil, nil, err
	}
	if len(rs.to) >= maxRoutes {
		if victim = rs.idlest(); victim != nil {
			delete(rs.to, victim.d)
		}
	}
	r = &route{d: d, sink: sink, inUse: 1}
	rs.to[d] = r
	return r, victim, nil
}

// give gives a route back.
func (rs *routes) give(r *route) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.inUse--
	r.used = time.Now()
}

// idlest returns the route that has been idle longest, nil if all are in use.
// With rs.mu held.
func (rs *routes) idlest() *route {
	var idlest *route
	for _, r := range rs.to {
		if r.inUse == 0 && (idlest == nil || r.used.Before(idlest.used)) {
			idlest = r
		}
	}
	return idlest
}

// closeIdle closes the routes that have not been used since a time.
func (rs *routes) closeIdle(since time.Time) {
	for _, r := range rs.cutIdle(since) {
		_ = r.sink.Close()
	}
}

// cutIdle takes out the routes that have not been used since a time.
func (rs *routes) cutIdle(since time.Time) []*route {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var idle []*route
	for d, r := range rs.to {
		if r.inUse == 0 && r.used.Before(since) {
			delete(rs.to, d)
			idle = append(idle, r)
		}
	}
	return idle
}

// size is how many are open.
func (rs *routes) size() int {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return len(rs.to)
}

// close closes all routes. No one may be in use.
func (rs *routes) close() error {
	rs.mu.Lock()
	all := rs.to
	rs.to, rs.over = nil, true
	rs.mu.Unlock()
	var errs []error
	for _, r := range all {
		errs = append(errs, r.sink.Close())
	}
	return errors.Join(errs...)
}

// good notes that the destination took something.
func (r *route) good() { r.since, r.again, r.err = time.Time{}, time.Time{}, nil }

// bad notes that it did not.
func (r *route) bad(err error, now time.Time) {
	if r.since.IsZero() {
		r.since = now
	}
	r.err, r.again = err, now.Add(retryAfter)
}

// givenUp reports whether the destination is given up.
func (r *route) givenUp(now time.Time, giveUp time.Duration) bool {
	return !r.since.IsZero() && now.Sub(r.since) >= giveUp
}
