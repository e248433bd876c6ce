package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// replayPrefix precedes the name of a replay in the bucket.
const replayPrefix = "replay."

// ReplayPosition is how far a replay of a name has come.
type ReplayPosition struct {
	Name   string        `json:"-"`
	Places []ReplayPlace `json:"places"` // one for each stream
	What   string        `json:"what"`   // what is replayed, and to where, as somebody asked for it
	Events uint64        `json:"events"` // written so far, over all runs
	When   time.Time     `json:"when"`
	Owner  string        `json:"owner"` // the run that wrote it

	Revision uint64 `json:"-"` // 0 when nothing is kept under the name
}

// ReplayPlace is how far a replay is in one stream. Every frame up to Seq is
// done with.
type ReplayPlace struct {
	Stream  string    `json:"stream"`
	Created time.Time `json:"created"` // when the stream was made whose sequence this is
	Seq     uint64    `json:"seq"`
}

// ErrReplayRunning is returned when two runs go on under one name.
var ErrReplayRunning = errors.New("another run of this replay is going on")

// ReplayPositions are the positions in the bucket.
type ReplayPositions struct{ conn *Conn }

// NewReplayPositions returns the positions behind conn.
func NewReplayPositions(conn *Conn) *ReplayPositions { return &ReplayPositions{conn} }

// Get returns the position of a name; of one that is not known, the beginning.
func (s *ReplayPositions) Get(ctx context.Context, name string) (ReplayPosition, error) {
	p := ReplayPosition{Name: name}
	if name == "" || name != Token(name) {
		return p, fmt.Errorf("replay name %q: letters, digits, '-' and '_' only, at most %d", name, maxToken)
	}
	kv, err := s.conn.js.KeyValue(ctx, BucketName)
	if err != nil {
		return p, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	e, err := kv.Get(ctx, replayPrefix+name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("bucket %s, key %s%s: %w", BucketName, replayPrefix, name, err)
	}
	if err := json.Unmarshal(e.Value(), &p); err != nil {
		return p, fmt.Errorf("bucket %s, key %s%s: %w", BucketName, replayPrefix, name, err)
	}
	p.Revision = e.Revision()
	return p, nil
}

// Put keeps a position that follows the one with p.Revision, and returns it
// with its own. If another run has kept one meanwhile nothing is kept, and the
// error wraps [ErrReplayRunning]. It waits for NATS as long as ctx allows.
func (s *ReplayPositions) Put(ctx context.Context, p ReplayPosition) (ReplayPosition, error) {
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		if err := s.conn.await(ctx); err != nil {
			return p, fmt.Errorf("position of replay %s not kept: %w", p.Name, err)
		}
		kept, err := s.put(ctx, p)
		if err == nil || errors.Is(err, ErrReplayRunning) || errors.Is(err, jetstream.ErrBucketNotFound) {
			return kept, err
		}
		if ctx.Err() != nil {
			return p, fmt.Errorf("position of replay %s not kept: %w", p.Name, err)
		}
		sleep(ctx, pause)
	}
}

// put tries once.
func (s *ReplayPositions) put(ctx context.Context, p ReplayPosition) (ReplayPosition, error) {
	value, err := json.Marshal(p)
	if err != nil {
		return p, fmt.Errorf("replay %s: %w", p.Name, err)
	}
	kv, err := s.conn.js.KeyValue(ctx, BucketName)
	if err != nil {
		return p, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	var revision uint64
	if p.Revision == 0 { // never there, or deleted
		revision, err = kv.Create(ctx, replayPrefix+p.Name, value)
	} else {
		revision, err = kv.Update(ctx, replayPrefix+p.Name, value, p.Revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return s.meanwhile(ctx, p)
	}
	if err != nil {
		return p, fmt.Errorf("bucket %s, key %s%s: %w", BucketName, replayPrefix, p.Name, err)
	}
	p.Revision = revision
	return p, nil
}

// meanwhile looks at what is there instead: it may be our own, kept by an
// attempt whose answer was lost.
func (s *ReplayPositions) meanwhile(ctx context.Context, p ReplayPosition) (ReplayPosition, error) {
	now, err := s.Get(ctx, p.Name)
	if err != nil {
		return p, err
	}
	same := func(a, b ReplayPlace) bool { return a.Stream == b.Stream && a.Seq == b.Seq }
	switch {
	case now.Owner == p.Owner && slices.EqualFunc(now.Places, p.Places, same):
		p.Revision = now.Revision
		return p, nil
	case now.Owner == p.Owner:
		p.Revision = now.Revision
		return s.put(ctx, p)
	}
	return p, fmt.Errorf("replay %s: %w, last heard of at %s", p.Name, ErrReplayRunning, now.When.Format(time.RFC3339))
}
