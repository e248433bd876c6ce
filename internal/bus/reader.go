package bus

import (
	"context"
	"time"
)

// bucketReader reads something of the bucket when it is wanted, after every
// reconnect and at intervals.
type bucketReader[T any] struct {
	conn   *Conn
	read   func(ctx context.Context) (T, error)
	wanted chan struct{} // size 1
	got    chan T
}

func (r *bucketReader[T]) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := minBackoff
	for {
		changed := r.conn.changed()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-r.wanted:
		case <-timer.C:
		}
		if !r.conn.connected() {
			pause = min(2*pause, maxBackoff)
			timer.Reset(pause) // it may be back already, before changed was taken anew
			continue
		}
		got, err := r.once(ctx)
		if err != nil {
			pause = min(2*pause, maxBackoff)
			timer.Reset(pause)
			continue
		}
		pause = minBackoff
		timer.Reset(watchPoll)
		select {
		case r.got <- got:
		case <-ctx.Done():
			return
		}
	}
}

func (r *bucketReader[T]) once(ctx context.Context) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return r.read(ctx)
}
