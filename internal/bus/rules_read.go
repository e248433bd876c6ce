package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// decodeRule reads a rule. Its name is that of its key. A field that is not
// known may be a selector, without which the rule would select more: it is an
// error.
func decodeRule(name string, data []byte, revision uint64) StoredRule {
	r := StoredRule{Revision: revision}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(&r.Rule)
	if err == nil && !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		err = errors.New("no JSON object") // null would be a rule that selects everything
	}
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows the rule")
		}
	}
	if err != nil {
		r.Rule, r.Err = trace.Rule{}, fmt.Errorf("not read: %w", err)
	}
	r.Name = name
	return r
}

// rulesReading is all rules, and what they were read from: revisions begin
// again in a bucket that was made anew.
type rulesReading struct {
	bucket time.Time // when it was made
	seq    uint64    // the last change that the bucket had seen
	rules  map[string]StoredRule
}

// sorted are the rules by name.
func (r rulesReading) sorted() []StoredRule {
	var all []StoredRule
	for _, name := range slices.Sorted(maps.Keys(r.rules)) {
		all = append(all, r.rules[name])
	}
	return all
}

// read reads all rules.
func (s *RuleStore) read(ctx context.Context) (rulesReading, error) {
	return s.readUnless(ctx, func(time.Time, uint64) bool { return false })
}

// readUnless reads all rules unless what they would be read from is known. Then
// it returns no rules.
func (s *RuleStore) readUnless(ctx context.Context, known func(bucket time.Time, seq uint64) bool) (rulesReading, error) {
	stream, err := s.conn.js.Stream(ctx, bucketStream)
	if err != nil {
		return rulesReading{}, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	if info := stream.CachedInfo(); known(info.Created, info.State.LastSeq) {
		return rulesReading{bucket: info.Created, seq: info.State.LastSeq}, nil
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(ruleSubject+"*"))
	if err != nil {
		return rulesReading{}, fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	r := rulesReading{bucket: info.Created, seq: info.State.LastSeq, rules: make(map[string]StoredRule)}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readsAtOnce)
	for subject := range info.State.Subjects {
		g.Go(func() error {
			msg, err := stream.GetLastMsgForSubject(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && deleted(msg.Header) {
				return nil
			}
			name := strings.TrimPrefix(subject, ruleSubject)
			if err != nil {
				return ruleError(name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			r.rules[name] = decodeRule(name, msg.Data, msg.Sequence)
			return nil
		})
	}
	return r, g.Wait()
}
