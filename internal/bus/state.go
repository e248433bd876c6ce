package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	stateKey     = "state"
	bucketStream = "KV_" + BucketName
	stateSubject = "$KV." + BucketName + "." + stateKey

	headerOperation = "KV-Operation" // present when the key was deleted
)

// State is the global switch: whether everything is traced, and who said so.
// Revision is 0 when nobody ever did; tracing is on then.
type State struct {
	On       bool      `json:"on"`
	Who      string    `json:"who,omitempty"`
	Why      string    `json:"why,omitempty"`
	When     time.Time `json:"when,omitzero"`
	Until    time.Time `json:"until,omitzero"` // then it is the other way round; zero is for ever
	Revision uint64    `json:"-"`
}

// Effective reports whether tracing is on at now.
func (s State) Effective(now time.Time) bool {
	if s.expired(now) {
		return !s.On
	}
	return s.On
}

func (s State) expired(now time.Time) bool {
	return !s.Until.IsZero() && !now.Before(s.Until)
}

func (s State) equal(other State) bool {
	return s.On == other.On && s.Who == other.Who && s.Why == other.Why &&
		s.When.Equal(other.When) && s.Until.Equal(other.Until) && s.Revision == other.Revision
}

// unset is the state nobody has set.
func unset(revision uint64) State { return State{On: true, Revision: revision} }

// ErrConflict is returned by [StateStore.Set] when somebody else was quicker.
var ErrConflict = errors.New("somebody else has switched tracing meanwhile")

// StateStore is the state in the bucket.
type StateStore struct {
	conn *Conn
}

// NewStateStore returns the state behind conn.
func NewStateStore(conn *Conn) *StateStore { return &StateStore{conn} }

// Get returns the state as it is now.
func (s *StateStore) Get(ctx context.Context) (State, error) {
	r, err := s.read(ctx)
	return r.state, err
}

// Set writes the state that follows the one with next.Revision, and returns it
// with its own revision. If that is not the newest any more nothing is written
// and the error wraps [ErrConflict] and tells who was quicker.
func (s *StateStore) Set(ctx context.Context, next State) (State, error) {
	value, err := json.Marshal(next)
	if err != nil {
		return State{}, fmt.Errorf("state: %w", err)
	}
	kv, err := s.conn.js.KeyValue(ctx, BucketName)
	if err != nil {
		return State{}, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	revision, err := kv.Update(ctx, stateKey, value, next.Revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return State{}, s.conflict(ctx)
	}
	if err != nil {
		return State{}, fmt.Errorf("bucket %s, key %s: %w", BucketName, stateKey, err)
	}
	next.Revision = revision
	return next, nil
}

// conflict says who was quicker, if that can be learned.
func (s *StateStore) conflict(ctx context.Context) error {
	now, err := s.Get(ctx)
	if err != nil {
		return ErrConflict
	}
	word := "off"
	if now.On {
		word = "on"
	}
	return fmt.Errorf("%w: %s, by %q at %s", ErrConflict, word, now.Who, now.When.Format(time.RFC3339))
}

// History returns what the state was, oldest first, as far back as the bucket
// remembers.
func (s *StateStore) History(ctx context.Context) ([]State, error) {
	kv, err := s.conn.js.KeyValue(ctx, BucketName)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	entries, err := kv.History(ctx, stateKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s, key %s: %w", BucketName, stateKey, err)
	}
	var states []State
	for _, e := range entries {
		if e.Operation() != jetstream.KeyValuePut {
			states = append(states, unset(e.Revision()))
			continue
		}
		st, err := decodeState(e.Value(), e.Revision())
		if err != nil {
			return nil, err
		}
		states = append(states, st)
	}
	return states, nil
}

// reading is a state and the bucket it was read from: revisions begin again in
// a bucket that was made anew.
type reading struct {
	state  State
	bucket time.Time // when it was made
}

func (s *StateStore) read(ctx context.Context) (reading, error) {
	stream, err := s.conn.js.Stream(ctx, bucketStream)
	if err != nil {
		return reading{}, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	r := reading{state: unset(0), bucket: stream.CachedInfo().Created}
	msg, err := stream.GetLastMsgForSubject(ctx, stateSubject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return r, nil
	case err != nil:
		return reading{}, fmt.Errorf("bucket %s, key %s: %w", BucketName, stateKey, err)
	}
	r.state, err = stateOf(msg.Header, msg.Data, msg.Sequence)
	return r, err
}

// stateOf reads a message of the bucket; one that deletes the key unsets the state.
func stateOf(header nats.Header, data []byte, revision uint64) (State, error) {
	if header.Get(headerOperation) != "" {
		return unset(revision), nil
	}
	return decodeState(data, revision)
}

func decodeState(data []byte, revision uint64) (State, error) {
	var st State
	if err := json.Unmarshal(data, &st); err != nil {
		return State{}, fmt.Errorf("bucket %s, key %s, revision %d: %w", BucketName, stateKey, revision, err)
	}
	st.Revision = revision
	return st, nil
}

// savedState is a state in a file.
type savedState struct {
	State
	Revision uint64 `json:"revision"`
}

// SaveState keeps a state in a file, for the time when NATS cannot be asked.
// The file is whole at any time, even after a power failure.
func SaveState(path string, st State) error {
	text, err := json.Marshal(savedState{st, st.Revision})
	if err == nil {
		err = replaceFile(path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// LoadState reads what [SaveState] wrote. Without a file it is the state
// nobody has set.
func LoadState(path string) (State, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return unset(0), nil
	}
	if err != nil {
		return unset(0), fmt.Errorf("load state: %w", err)
	}
	var saved savedState
	if err := json.Unmarshal(text, &saved); err != nil {
		return unset(0), fmt.Errorf("load state: %s: %w", path, err)
	}
	saved.State.Revision = saved.Revision
	return saved.State, nil
}
