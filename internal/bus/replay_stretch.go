package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ReplayRange says what is wanted of the streams. The zero value is all of
// them, up to their ends as they are now.
type ReplayRange struct {
	Shard        *int              // of this shard alone; nil is of all
	First, Last  uint64            // frames of one stream by their sequence, both included; 0 is the stream's own
	Behind       map[string]uint64 // by stream: only frames behind this one
	Since, Until time.Time         // frames by when they were stored: Since ≤ t < Until; zero is without bound
}

// Stretch is a part of one stream that was found there.
type Stretch struct {
	Stream      string
	Shard       int
	Created     time.Time // of the stream: another time is another stream
	First, Last uint64    // sequences of the frames; there are none if Last is below First
	Discarded   uint64    // frames that were wanted by their sequence and that the stream has not any more

	Oldest, Newest time.Time // when the first and the last frame of the whole stream were stored; zero if it is empty
}

// Frames is how many frames the stretch has.
func (s Stretch) Frames() uint64 {
	if s.Last < s.First {
		return 0
	}
	return s.Last - s.First + 1
}

// ErrSharded is returned for frames by their sequence when events are spread
// over several streams and it was not said which one is meant.
var ErrSharded = errors.New("each stream numbers its frames for itself")

// ErrNoShard is returned for a shard that the fleet does not have.
var ErrNoShard = errors.New("no such shard")

// Stretches looks up what there is of a range, in each stream that is wanted,
// in the order of the shards.
func (c *Conn) Stretches(ctx context.Context, want ReplayRange) ([]Stretch, error) {
	names, err := c.eventStreams(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case want.Shard != nil && (*want.Shard < 0 || *want.Shard >= len(names)):
		return nil, fmt.Errorf("%w: %d, and there are %d, counted from 0", ErrNoShard, *want.Shard, len(names))
	case want.Shard == nil && len(names) > 1 && (want.First > 0 || want.Last > 0):
		return nil, fmt.Errorf("%w, and there are %d, shard 0 to %d", ErrSharded, len(names), len(names)-1)
	}
	var all []Stretch
	for shard, name := range names {
		if want.Shard != nil && shard != *want.Shard {
			continue
		}
		s, err := c.js.Stream(ctx, name)
		if err == nil {
			var st Stretch
			st, err = stretchOf(ctx, s, want)
			st.Shard = shard
			all = append(all, st)
		}
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return all, nil
}

// stretchOf looks up what one stream has of a range.
func stretchOf(ctx context.Context, s jetstream.Stream, want ReplayRange) (Stretch, error) {
	info := s.CachedInfo()
	st := Stretch{
		Stream: info.Config.Name, Created: info.Created,
		First: max(info.State.FirstSeq, 1), Last: info.State.LastSeq,
	}
	if info.State.Msgs > 0 {
		st.Oldest, st.Newest = info.State.FirstTime, info.State.LastTime
	}
	first := want.First
	if behind, ok := want.Behind[st.Stream]; ok {
		first = max(first, behind+1)
	}
	if first > 0 {
		if first < st.First {
			st.Discarded = min(st.First, st.Last+1) - first
		}
		st.First = max(st.First, first)
	}
	if want.Last > 0 {
		st.Last = min(st.Last, want.Last)
	}
	if !want.Since.IsZero() {
		first, err := storedSince(ctx, s, want.Since)
		if err != nil {
			return st, err
		}
		if first > st.First {
			st.First, st.Discarded = first, 0 // what is gone was stored before
		}
	}
	if !want.Until.IsZero() {
		behind, err := storedSince(ctx, s, want.Until)
		if err != nil {
			return st, err
		}
		st.Last = min(st.Last, max(behind, 1)-1)
	}
	return st, nil
}

// storedSince returns the sequence of the first frame stored at a time or
// later; where there is none yet, that of the next one. The server knows: it
// is where a consumer begins that asks for that time.
func storedSince(ctx context.Context, s jetstream.Stream, t time.Time) (uint64, error) {
	cons, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartTimePolicy,
		OptStartTime:      &t,
		InactiveThreshold: requestTimeout, // it goes away by itself where deleting fails
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return 0, err
	}
	info := cons.CachedInfo()
	_ = s.DeleteConsumer(ctx, info.Name)
	return info.Delivered.Stream + 1, nil
}
