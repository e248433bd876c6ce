package bus

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	watchPoll    = 15 * time.Second // the state is read this often even if nothing is heard
	watchBacklog = 64               // changes that may wait; the poll makes up for what is lost beyond
)

// Watch tells fn the state: first last, what is known from before, and then
// whatever it becomes, within milliseconds of the change. It tells it again
// when [State.Until] is reached, so that fn may ask [State.Effective] each
// time and be right. It returns when ctx ends; fn is never called by two
// goroutines at once.
//
// Changes are heard as plain messages that the bucket republishes; the state
// is read besides after every reconnect and now and then. While NATS is away
// the last state stays.
func (s *StateStore) Watch(ctx context.Context, last State, fn func(State)) error {
	heard := make(chan *nats.Msg, watchBacklog)
	sub, err := s.conn.nc.ChanSubscribe(ControlSubject+"."+stateKey, heard)
	if err != nil {
		return fmt.Errorf("watch state: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // a closed connection has unsubscribed already

	w := &stateWatch{store: s, known: reading{state: last}, fn: fn}
	reader := bucketReader[reading]{conn: s.conn, read: s.read, wanted: make(chan struct{}, 1), got: make(chan reading)}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { reader.run(ctx) })
	w.run(ctx, heard, &reader)
	return nil
}

// stateWatch decides what is new and tells it.
type stateWatch struct {
	store *StateStore
	fn    func(State)

	known  reading
	heard  bool // something was heard, which is newer than what is known from before
	told   bool
	latest State // told last,
	wasOn  bool  // and whether it meant on
}

func (w *stateWatch) run(ctx context.Context, heard <-chan *nats.Msg, reader *bucketReader[reading]) {
	expiry := time.NewTimer(0)
	defer expiry.Stop()
	for {
		w.tell(time.Now())
		expiry.Stop()
		if until := w.known.state.Until; time.Now().Before(until) {
			expiry.Reset(time.Until(until))
		}
		select {
		case <-ctx.Done():
			return
		case <-expiry.C:
		case msg := <-heard:
			w.hear(msg)
			wake(reader.wanted) // what was heard may come from a bucket made anew, or not be understood
		case r := <-reader.got:
			w.learn(r)
		}
	}
}

// tell calls fn if the state or its meaning has changed.
func (w *stateWatch) tell(now time.Time) {
	st := w.known.state
	on := st.Effective(now)
	if w.told && on == w.wasOn && st.equal(w.latest) {
		return
	}
	w.told, w.latest, w.wasOn = true, st, on
	w.fn(st)
}

// hear takes a republished change if it is newer.
func (w *stateWatch) hear(msg *nats.Msg) {
	revision, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || revision <= w.known.state.Revision {
		return
	}
	st, err := stateOf(msg.Header, msg.Data, revision)
	if err != nil {
		w.store.conn.log.Warn("state not understood, the last one stays", "err", err)
		return
	}
	w.known.state, w.heard = st, true
}

// learn takes what was read: from the bucket we know only what is newer, for a
// replica may lag behind; from another one everything, except that the first
// reading does not undo what was heard before it.
func (w *stateWatch) learn(r reading) {
	older := r.state.Revision <= w.known.state.Revision
	switch {
	case older && r.bucket.Equal(w.known.bucket):
	case older && w.known.bucket.IsZero() && w.heard:
		w.known.bucket = r.bucket
	default:
		w.known = r
	}
}
