package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// MaxShards is the most streams a fleet may spread its events over.
const MaxShards = 64

// ShardOf returns the shard of an event, 0 to shards-1: FNV-1a of the Call-ID
// modulo the number of shards, so that a call is in one stream whoever has
// captured it. What is no SIP, or has no Call-ID, goes by its correlation id,
// and without one to shard 0.
func ShardOf(e *trace.Event, shards int) int {
	if shards <= 1 {
		return 0
	}
	key := e.CorrelationID
	if e.Type == trace.TypeSIP {
		if id := callID(e.Payload); len(id) > 0 {
			key = id
		}
	}
	if len(key) == 0 {
		return 0
	}
	return int(fnv1a(key) % uint32(shards))
}

// callID is the first word of the first Call-ID of a message that has one. A
// whole scan would cost several times as much.
func callID(message []byte) []byte {
	for name, value := range sipmsg.Headers(message) {
		if len(name) == 1 && name[0]|0x20 == 'i' || len(name) == 7 && bytes.EqualFold(name, []byte("Call-ID")) {
			if end := bytes.IndexAny(value, " \t\r\n"); end >= 0 {
				value = value[:end]
			}
			if len(value) > 0 {
				return value
			}
		}
	}
	return nil
}

// fnv1a is hash/fnv's New32a without its allocation.
func fnv1a(b []byte) uint32 {
	const offset, prime = 2166136261, 16777619
	h := uint32(offset)
	for _, c := range b {
		h = (h ^ uint32(c)) * prime
	}
	return h
}

// shardSubject is what the subjects of a shard begin with.
func shardSubject(shard int) string { return EventsSubject + "." + strconv.Itoa(shard) }

// streamOf is the name of a shard's stream.
func streamOf(shard, shards int) string {
	if shards == 1 {
		return StreamName
	}
	return StreamName + "_" + strconv.Itoa(shard)
}

// The number of shards is a key of the bucket, for all have to agree. Without
// it there is one, as in every fleet that was not told otherwise.
const (
	shardsKey     = "shards"
	shardsSubject = "$KV." + BucketName + "." + shardsKey
)

// Shards returns over how many streams the fleet spreads its events.
func (c *Conn) Shards(ctx context.Context) (int, error) {
	bucket, err := c.js.Stream(ctx, bucketStream)
	if err != nil {
		return 0, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	msg, err := bucket.GetLastMsgForSubject(ctx, shardsSubject)
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Header.Get(headerOperation) != "" {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("bucket %s, key %s: %w", BucketName, shardsKey, err)
	}
	n, err := strconv.Atoi(string(msg.Data))
	if err != nil || n < 1 || n > MaxShards {
		return 0, fmt.Errorf("bucket %s, key %s: %q is no number of shards", BucketName, shardsKey, msg.Data)
	}
	return n, nil
}

// shardsPatience is how long a tap waits for a bucket that cannot be read.
const shardsPatience = 3 * time.Second

// WatchShards tells fn how many shards there are, again whenever that changes,
// until ctx ends. When NATS is there and the bucket cannot be read, fn is told
// after a while what was known last: a tap must not be silent only because
// nobody lets it read.
func (c *Conn) WatchShards(ctx context.Context, last int, fn func(shards int)) error {
	heard := make(chan *nats.Msg, 1) // that there was a change is enough
	sub, err := c.nc.ChanSubscribe(ControlSubject+"."+shardsKey, heard)
	if err != nil {
		return fmt.Errorf("watch shards: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // a closed connection has unsubscribed already

	reader := bucketReader[int]{conn: c, read: c.Shards, wanted: make(chan struct{}, 1), got: make(chan int)}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { reader.run(ctx) })

	if c.await(ctx) != nil {
		return nil
	}
	patience := time.NewTimer(shardsPatience)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heard:
			wake(reader.wanted)
		case last = <-reader.got:
			patience.Stop()
			fn(last)
		case <-patience.C:
			c.log.Warn("number of shards not known, going on as if it were as before", "shards", last)
			fn(last)
		}
	}
}

// eventStreams returns the names of the streams of events. A fleet with one
// needs no look into the bucket, which a worker may not be allowed.
func (c *Conn) eventStreams(ctx context.Context) ([]string, error) {
	_, err := c.js.Stream(ctx, StreamName)
	if err == nil {
		return []string{StreamName}, nil
	}
	missing := fmt.Errorf("stream %s: %w", StreamName, err)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, missing
	}
	n, err := c.Shards(ctx)
	if n == 1 || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, n)
	for shard := range names {
		names[shard] = streamOf(shard, n)
	}
	return names, nil
}

// agreeOnShards returns how many there are, and sets it where nobody has. The
// difference is what was wanted instead.
func (c *Conn) agreeOnShards(ctx context.Context, want int) (int, []Difference, error) {
	if want < 0 || want > MaxShards {
		return 0, nil, fmt.Errorf("%d shards are not between 1 and %d", want, MaxShards)
	}
	have, err := c.Shards(ctx)
	if err != nil {
		return 0, nil, err
	}
	if have > 1 || want > 1 {
		if have, err = c.settleShards(ctx, have, want); err != nil {
			return 0, nil, err
		}
	}
	var d comparison
	d.stream = bucketStream
	if want > 0 {
		d.add(shardsKey, have, want)
	}
	return have, d.found, nil
}

// settleShards decides when somebody wants several. The server keeps streams
// with the same subjects apart, so the single stream, where it is, was there
// first: a key that says otherwise came too late and goes.
func (c *Conn) settleShards(ctx context.Context, have, want int) (int, error) {
	kv, err := c.js.KeyValue(ctx, BucketName)
	if err != nil {
		return 0, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	_, err = c.js.Stream(ctx, StreamName)
	single := err == nil
	switch {
	case err != nil && !errors.Is(err, jetstream.ErrStreamNotFound):
		return 0, fmt.Errorf("stream %s: %w", StreamName, err)
	case single && have > 1:
		err, have = kv.Delete(ctx, shardsKey), 1
	case !single && have == 1:
		_, err = kv.Create(ctx, shardsKey, []byte(strconv.Itoa(want)))
		have = want
	default:
		return have, nil
	}
	if errors.Is(err, jetstream.ErrKeyExists) { // another process was quicker
		return c.Shards(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("bucket %s, key %s: %w", BucketName, shardsKey, err)
	}
	return have, nil
}

// filterOf is what a filter of subjects means for the stream of one shard; ok
// is false when it means nothing there.
func filterOf(subject string, shard, shards int) (filter string, ok bool) {
	if shards == 1 {
		return subject, true
	}
	rest, ok := strings.CutPrefix(subject, EventsSubject+".")
	if !ok {
		return "", false
	}
	token, rest, more := strings.Cut(rest, ".")
	switch {
	case token == ">":
		return shardSubject(shard) + ".>", true
	case token == "*", token == strconv.Itoa(shard):
		if more {
			return shardSubject(shard) + "." + rest, true
		}
		return shardSubject(shard), true
	}
	return "", false
}
