package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const (
	rulePrefix  = "rule."
	ruleSubject = "$KV." + BucketName + "." + rulePrefix
	maxRule     = 64 << 10 // bytes of a rule
	readsAtOnce = 16
)

// StoredRule is a rule as the bucket holds it.
type StoredRule struct {
	trace.Rule
	Revision uint64
	Err      error // why it could not be read; there is nothing but a name then
}

// ErrNoRule is returned for a rule that is not there.
var ErrNoRule = errors.New("no such rule")

// ErrRuleConflict is returned when somebody else was quicker.
var ErrRuleConflict = errors.New("somebody else has changed the rule meanwhile")

// RuleStore is the rules in the bucket. It stores what it is given: whether a
// rule is any good is for others to say.
type RuleStore struct {
	conn *Conn
}

// NewRuleStore returns the rules behind conn.
func NewRuleStore(conn *Conn) *RuleStore { return &RuleStore{conn} }

// List returns all rules, by name.
func (s *RuleStore) List(ctx context.Context) ([]StoredRule, error) {
	r, err := s.read(ctx)
	return r.sorted(), err
}

// Get returns a rule, or an error that wraps [ErrNoRule].
func (s *RuleStore) Get(ctx context.Context, name string) (StoredRule, error) {
	if err := checkRuleKey(name); err != nil {
		return StoredRule{}, err
	}
	stream, err := s.conn.js.Stream(ctx, bucketStream)
	if err != nil {
		return StoredRule{}, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, ruleSubject+name)
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && deleted(msg.Header) {
		return StoredRule{}, fmt.Errorf("%w: %s", ErrNoRule, name)
	}
	if err != nil {
		return StoredRule{}, ruleError(name, err)
	}
	r := decodeRule(name, msg.Data, msg.Sequence)
	return r, r.Err
}

// Put writes a rule in place of its revision, which is 0 where there must be
// none yet, and returns the new revision. If that is not how things are any
// more nothing is written and the error wraps [ErrRuleConflict] and tells what
// has happened.
func (s *RuleStore) Put(ctx context.Context, rule trace.Rule, revision uint64) (uint64, error) {
	if err := checkRuleKey(rule.Name); err != nil {
		return 0, err
	}
	value, err := json.Marshal(rule)
	if err != nil {
		return 0, ruleError(rule.Name, err)
	}
	if len(value) > maxRule {
		return 0, fmt.Errorf("rule %s: %d bytes, more than %d", rule.Name, len(value), maxRule)
	}
	kv, err := s.conn.js.KeyValue(ctx, BucketName)
	if err != nil {
		return 0, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	if revision == 0 {
		revision, err = kv.Create(ctx, rulePrefix+rule.Name, value)
	} else {
		revision, err = kv.Update(ctx, rulePrefix+rule.Name, value, revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return 0, s.conflict(ctx, rule.Name)
	}
	if err != nil {
		return 0, ruleError(rule.Name, err)
	}
	return revision, nil
}

// Removal says who has removed a rule, and why.
type Removal struct {
	Who string `json:"who,omitempty"`
	Why string `json:"why,omitempty"`
}

// Delete removes a rule with a revision, or fails like [RuleStore.Put]. The
// history keeps who did it.
func (s *RuleStore) Delete(ctx context.Context, name string, revision uint64, by Removal) error {
	if err := checkRuleKey(name); err != nil {
		return err
	}
	note, err := json.Marshal(by)
	if err != nil {
		return ruleError(name, err)
	}
	// The key is marked as deleted like the client library does it, except that
	// the mark says who.
	mark := nats.NewMsg(ruleSubject + name)
	mark.Header.Set(headerOperation, operationDelete)
	mark.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	mark.Data = note
	_, err = s.conn.js.PublishMsg(ctx, mark)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return s.conflict(ctx, name)
	}
	if err != nil {
		return ruleError(name, err)
	}
	return nil
}

const operationDelete = "DEL"

// conflict says who was quicker, if that can be learned.
func (s *RuleStore) conflict(ctx context.Context, name string) error {
	now, err := s.Get(ctx, name)
	switch {
	case errors.Is(err, ErrNoRule):
		return fmt.Errorf("%w: %s is not there any more", ErrRuleConflict, name)
	case now.Revision == 0 || err != nil:
		return fmt.Errorf("%w: %s", ErrRuleConflict, name)
	}
	return fmt.Errorf("%w: %s is now revision %d, by %q at %s", ErrRuleConflict, name, now.Revision, now.Who, now.Created.Format(time.RFC3339))
}

// RuleChange is one entry of a rule's history.
type RuleChange struct {
	StoredRule
	When    time.Time
	Removed bool // by Who, because of Why; all else is empty
}

// History returns what a rule was, or all rules where name is "", oldest
// first, as far back as the bucket remembers.
func (s *RuleStore) History(ctx context.Context, name string) ([]RuleChange, error) {
	key := rulePrefix + "*"
	if name != "" {
		if err := checkRuleKey(name); err != nil {
			return nil, err
		}
		key = rulePrefix + name
	}
	kv, err := s.conn.js.KeyValue(ctx, BucketName)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	entries, err := kv.History(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s, key %s: %w", BucketName, key, err)
	}
	var changes []RuleChange
	for _, e := range entries {
		changes = append(changes, changeOf(e))
	}
	slices.SortStableFunc(changes, func(a, b RuleChange) int { return cmp.Compare(a.Revision, b.Revision) })
	return changes, nil
}

func changeOf(e jetstream.KeyValueEntry) RuleChange {
	name := strings.TrimPrefix(e.Key(), rulePrefix)
	if e.Operation() == jetstream.KeyValuePut {
		return RuleChange{StoredRule: decodeRule(name, e.Value(), e.Revision()), When: e.Created()}
	}
	var by Removal
	_ = json.Unmarshal(e.Value(), &by) // other tools leave no note
	r := trace.Rule{Name: name, Who: by.Who, Why: by.Why}
	return RuleChange{StoredRule: StoredRule{Rule: r, Revision: e.Revision()}, When: e.Created(), Removed: true}
}

// checkRuleKey keeps a name from being more or less than one token of a key.
func checkRuleKey(name string) error {
	ok := name != ""
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("rule name %q is not of letters, digits, - and _", name)
	}
	return nil
}

func ruleError(name string, err error) error {
	return fmt.Errorf("bucket %s, key %s: %w", BucketName, rulePrefix+name, err)
}

func deleted(header nats.Header) bool { return header.Get(headerOperation) != "" }
