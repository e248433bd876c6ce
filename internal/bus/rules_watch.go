package bus

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Watch tells fn the rules: first last, what is known from before, and then
// whatever they become, within milliseconds of a change. It returns when ctx
// ends; fn is never called by two goroutines at once.
//
// Changes are heard as plain messages that the bucket republishes, and cost no
// request. All rules are read when a change was missed: after every reconnect,
// in a bucket that was made anew, and where the bucket's last sequence, which
// is asked for now and then, is not the one last heard. While NATS is away the
// last rules stay.
func (s *RuleStore) Watch(ctx context.Context, last []StoredRule, fn func([]StoredRule)) error {
	heard := make(chan *nats.Msg, watchBacklog)
	sub, err := s.conn.nc.ChanSubscribe(ControlSubject+".>", heard)
	if err != nil {
		return fmt.Errorf("watch rules: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // a closed connection has unsubscribed already

	w := &ruleWatch{known: rulesReading{rules: make(map[string]StoredRule)}, fn: fn}
	for _, r := range last {
		w.known.rules[r.Name] = r
	}
	reader := bucketReader[rulesReading]{
		conn: s.conn, wanted: make(chan struct{}, 1), got: make(chan rulesReading),
		read: func(ctx context.Context) (rulesReading, error) { return s.readUnless(ctx, w.at) },
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { reader.run(ctx) })
	w.run(ctx, heard, &reader)
	return nil
}

// ruleWatch decides what is new and tells it.
type ruleWatch struct {
	fn    func([]StoredRule)
	known rulesReading
	mark  atomic.Pointer[bucketMark] // what known stands for, for the reader
}

// A bucketMark is a state of the bucket.
type bucketMark struct {
	bucket time.Time
	seq    uint64
}

// at reports whether this is the state of the bucket that is known.
func (w *ruleWatch) at(bucket time.Time, seq uint64) bool {
	m := w.mark.Load()
	return m != nil && m.bucket.Equal(bucket) && m.seq == seq
}

func (w *ruleWatch) run(ctx context.Context, heard <-chan *nats.Msg, reader *bucketReader[rulesReading]) {
	w.fn(w.known.sorted())
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-heard:
			if !w.hear(msg) {
				wake(reader.wanted)
			}
		case r := <-reader.got:
			w.learn(r)
		}
	}
}

// hear takes a republished change if it is the next one. Otherwise something
// was missed, and the rules are to be read: at once if the change is one of a
// rule. The other keys can wait for the next look: a replay keeps its position
// many times a second, and who reads more slowly than that would read for ever.
func (w *ruleWatch) hear(msg *nats.Msg) bool {
	name, ok := strings.CutPrefix(msg.Subject, ControlSubject+"."+rulePrefix)
	ok = ok && !strings.Contains(name, ".")
	seq, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || w.known.bucket.IsZero() || seq != w.known.seq+1 {
		return !ok
	}
	w.known.seq = seq
	w.mark.Store(&bucketMark{w.known.bucket, seq})
	if !ok {
		return true // the state, which others watch
	}
	if deleted(msg.Header) {
		delete(w.known.rules, name)
	} else {
		w.known.rules[name] = decodeRule(name, msg.Data, seq)
	}
	w.fn(w.known.sorted())
	return true
}

// learn takes what was read, if that is not older than what was heard since.
func (w *ruleWatch) learn(r rulesReading) {
	same := r.bucket.Equal(w.known.bucket)
	if r.rules == nil || same && r.seq < w.known.seq {
		return
	}
	w.mark.Store(&bucketMark{r.bucket, r.seq})
	changed := !same || !maps.EqualFunc(w.known.rules, r.rules, func(a, b StoredRule) bool { return a.Revision == b.Revision })
	w.known = r
	if changed {
		w.fn(r.sorted())
	}
}
