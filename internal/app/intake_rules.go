package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/rules"
)

// newRules follows the rules from the first moment on.
func newRules(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, f TapFlags, reg prometheus.Registerer, log *slog.Logger) (*rules.Engine, error) {
	en, err := rules.NewEngine(rules.Options{Dialogs: f.Dialogs, DialogIdle: time.Duration(f.DialogIdle)}, reg)
	if err != nil {
		return nil, err
	}
	follower := &ruleFollower{path: f.dataFile("rules"), engine: en, log: log, warned: make(map[string]uint64)}
	follower.load()
	runner(lc, sd, log, "rules", func(ctx context.Context) error {
		return follower.run(ctx, bus.NewRuleStore(c))
	})
	return en, nil
}

// A ruleFollower keeps an engine at the rules that the bucket holds, and a file
// for a start without NATS.
type ruleFollower struct {
	path   string // "" is no file
	engine *rules.Engine
	log    *slog.Logger

	last   []bus.StoredRule  // what was known before the bucket was asked
	told   bool              // the watch has told last
	warned map[string]uint64 // revisions of the rules that are no good, by name
}

// load begins with the rules of the file.
func (f *ruleFollower) load() {
	if f.path == "" {
		return
	}
	var err error
	if f.last, err = bus.LoadRules(f.path); err != nil {
		f.log.Warn("last known rules not read, going on without", "file", f.path, "err", err)
	}
	f.engine.Use(given(f.last))
}

// run follows the bucket until ctx is done.
func (f *ruleFollower) run(ctx context.Context, store *bus.RuleStore) error {
	return store.Watch(ctx, f.last, func(stored []bus.StoredRule) {
		f.engine.Use(given(stored))
		f.warn()
		if !f.told {
			f.told = true // that is what the file holds
			return
		}
		f.log.Info("rules changed", "stored", len(stored), "active", f.engine.Active())
		if f.path == "" {
			return
		}
		err := makeFolder(f.path)
		if err == nil {
			err = bus.SaveRules(f.path, stored)
		}
		if err != nil {
			f.log.Warn("rules not kept for the next start", "file", f.path, "err", err)
		}
	})
}

// warn says once for each revision that a rule is no good.
func (f *ruleFollower) warn() {
	for _, st := range f.engine.Status() {
		if st.Err != nil && f.warned[st.Name] != st.Revision {
			f.warned[st.Name] = st.Revision
			f.log.Warn("rule ignored", "rule", st.Name, "revision", st.Revision, "err", st.Err)
		}
	}
}

// given are stored rules as the engine takes them.
func given(stored []bus.StoredRule) []rules.Given {
	var out []rules.Given
	for _, r := range stored {
		out = append(out, rules.Given{Rule: r.Rule, Revision: r.Revision, Err: r.Err})
	}
	return out
}

// maxReason is how much of what is wrong with a rule a node tells: all its
// rules have to fit into one message.
const maxReason = 400

// ruleStatuses are the rules of a tap as ctl status shows them.
func ruleStatuses(en *rules.Engine) []bus.RuleStatus {
	var out []bus.RuleStatus
	for _, st := range en.Status() {
		r := bus.RuleStatus{Name: st.Name, Revision: st.Revision, Matched: st.Matched, Failed: st.Failed, Ended: st.Ended}
		if st.Err != nil {
			r.Error = st.Err.Error()
			if len(r.Error) > maxReason {
				r.Error = r.Error[:maxReason] + "…"
			}
		}
		out = append(out, r)
	}
	return out
}
