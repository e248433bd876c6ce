package bus

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestRuleWatch_readsAgainForRulesAlone(t *testing.T) {
	for key, want := range map[string]bool{"rule.x": false, "state": true, "shards": true, "replay.x": true, "rule.a.b": true} {
		w := ruleWatch{known: rulesReading{bucket: time.Now(), seq: 5}, fn: func([]StoredRule) {}}
		msg := &nats.Msg{Subject: ControlSubject + "." + key, Header: nats.Header{jetstream.SequenceHeader: {"9"}}}
		if got := w.hear(msg); got != want {
			t.Errorf("after a gap a change of %s is enough by itself: %v, want %v", key, got, want)
		}
	}
}
