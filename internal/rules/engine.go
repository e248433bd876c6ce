package rules

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// The defaults of [Options].
const (
	DefaultDialogs    = 100_000
	DefaultDialogIdle = 3 * time.Hour
)

// Options bound what an engine remembers. The zero value is the default.
type Options struct {
	Dialogs    int           // Call-IDs that are followed at a time
	DialogIdle time.Duration // how long one is followed behind its last message
}

// Given is a rule as it was stored.
type Given struct {
	trace.Rule
	Revision uint64
	Err      error // why it could not be read; Rule has only a name then
}

// Status is how one rule does on this tap.
type Status struct {
	Name     string
	Revision uint64
	Err      error  // why it is ignored
	Matched  uint64 // events it has selected, for as long as it has this revision
	Failed   uint64 // events its expression came to no answer about
	Ended    bool   // it has had its max_events
}

// An Engine decides, for all sources of a tap, which events pass and where
// they go. It is for several goroutines.
type Engine struct {
	compiler *Compiler
	metrics  *metrics
	started  time.Time
	active   atomic.Bool // there is a rule to ask

	mu      sync.Mutex // guards what follows
	set     *Set
	alive   bits      // the rules that have not ended
	counts  []counts  // by rule
	broken  []Status  // the rules that are ignored
	ends    time.Time // when the next rule expires; zero is never
	dialogs *dialogs

	m         message // of the moment, with the rules
	asked     bits    // asked about it
	hit       bits    // that it matches by itself
	effective bits    // that apply to it altogether
	names     trace.Names
}

// counts are how often a rule has been asked with success, and without.
type counts struct{ matched, failed uint64 }

// NewEngine returns an engine without rules.
func NewEngine(o Options, reg prometheus.Registerer) (*Engine, error) {
	compiler, err := NewCompiler()
	if err != nil {
		return nil, err
	}
	en := &Engine{
		compiler: compiler,
		started:  time.Now(),
		set:      &Set{},
		dialogs:  newDialogs(cmp.Or(o.Dialogs, DefaultDialogs), cmp.Or(o.DialogIdle, DefaultDialogIdle)),
	}
	if en.metrics, err = newMetrics(reg, en); err != nil {
		return nil, err
	}
	return en, nil
}

// Active reports whether there are rules: without, there is nothing to decide.
func (en *Engine) Active() bool { return en.active.Load() }

// Use puts the rules given in place of those before. What does not compile is
// ignored and told by [Engine.Status]. A rule that selects as before keeps the
// calls that it follows; one with the same revision goes on counting, too.
func (en *Engine) Use(given []Given) {
	now := time.Now()
	var compiled []*Rule
	var broken []Status
	for _, g := range given {
		if g.Err == nil && g.Expired(now) {
			continue
		}
		r, err := (*Rule)(nil), g.Err
		if err == nil {
			r, err = en.compiler.Compile(g.Rule, g.Revision)
		}
		if err != nil {
			broken = append(broken, Status{Name: g.Name, Revision: g.Revision, Err: err})
			continue
		}
		compiled = append(compiled, r)
	}
	set, left := NewSet(compiled)
	for _, r := range left {
		broken = append(broken, Status{Name: r.Name, Revision: r.Revision, Err: errTooMany})
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	en.replace(set)
	en.broken = broken
	en.endExpired(now)
}

// replace makes set the rules that count.
func (en *Engine) replace(set *Set) {
	before := make(map[string]int32, set.Len())
	for i, r := range set.rules {
		before[r.Name] = int32(i)
	}
	counted := make([]counts, set.Len())
	to := make([]int32, en.set.Len())
	for old, was := range en.set.rules {
		to[old] = none
		i, ok := before[was.Name]
		if !ok {
			continue
		}
		is := set.rules[i]
		if is.selects == was.selects && is.dialog() {
			to[old] = i
		}
		if is.selects == was.selects && is.Revision == was.Revision {
			counted[i] = en.counts[old]
		}
	}
	width := set.width()
	en.dialogs.remap(to, width)
	en.set, en.counts = set, counted
	en.alive, en.asked, en.hit, en.effective = make(bits, width), make(bits, width), make(bits, width), make(bits, width)
	for i, r := range set.rules {
		if r.MaxEvents == 0 || counted[i].matched < r.MaxEvents {
			en.alive.set(i)
		}
	}
	en.settle()
}

// settle works out what follows from the rules that are alive.
func (en *Engine) settle() {
	en.ends = time.Time{}
	for i, r := range en.set.rules {
		if en.alive.has(i) && !r.Expires.IsZero() && (en.ends.IsZero() || r.Expires.Before(en.ends)) {
			en.ends = r.Expires
		}
	}
	en.active.Store(en.alive.any())
}

// endExpired ends the rules whose time is up.
func (en *Engine) endExpired(now time.Time) {
	if en.ends.IsZero() || now.Before(en.ends) {
		return
	}
	for i, r := range en.set.rules {
		if en.alive.has(i) && r.Expired(now) {
			en.alive.clear(i)
		}
	}
	en.forget()
}

// forget stops following for rules that have ended.
func (en *Engine) forget() {
	to := make([]int32, en.set.Len())
	for i := range to {
		to[i] = none
		if en.alive.has(i) {
			to[i] = int32(i)
		}
	}
	en.dialogs.remap(to, en.set.width())
	en.settle()
}

// MaxBatch is how many events are decided about at a time.
const MaxBatch = 64

// Outcome is what becomes of a batch: a bit for each event, the lowest for the
// first. An event with neither bit is selected by nothing.
type Outcome struct{ Passed, Dropped uint64 }

// Decide applies the rules to at most [MaxBatch] events and sets the routing of
// those that pass. The strings and slices that it sets are good for as long as
// the event. A scan belongs to the event with its number; it counts only if
// that is SIP. If all is true the global state selects every event, and rules
// only say where it goes.
func (en *Engine) Decide(events []trace.Event, scans []sipmsg.Message, all bool) Outcome {
	var out Outcome
	en.mu.Lock()
	defer en.mu.Unlock()
	now := en.begin()
	for i := range events[:min(len(events), MaxBatch)] {
		e := &events[i]
		var scan *sipmsg.Message
		if e.Type == trace.TypeSIP {
			scan = &scans[i]
		}
		switch en.decide(e, scan, all, now) {
		case passed:
			out.Passed |= 1 << i
		case dropped:
			out.Dropped |= 1 << i
		}
	}
	return out
}

// begin is what a batch begins with.
func (en *Engine) begin() time.Duration {
	wall := time.Now()
	en.endExpired(wall)
	now := wall.Sub(en.started)
	en.dialogs.expire(now, MaxBatch) // as many as may be added
	return now
}

// A Decision is what becomes of one event, and why.
type Decision struct {
	Passed  bool
	Dropped bool
	Rules   []Reason // all that apply, by name
}

// A Reason is a rule that applies to an event.
type Reason struct {
	Name     string
	Followed bool // not for itself, but because an earlier message of its call matched
}

// Explain decides like [Engine.Decide] about one event, and says why.
func (en *Engine) Explain(e *trace.Event, scan *sipmsg.Message, all bool) Decision {
	en.mu.Lock()
	defer en.mu.Unlock()
	if e.Type != trace.TypeSIP {
		scan = nil
	}
	v := en.decide(e, scan, all, en.begin())
	d := Decision{Passed: v == passed, Dropped: v == dropped}
	for i, r := range en.set.rules {
		if en.effective.has(i) {
			d.Rules = append(d.Rules, Reason{r.Name, !en.hit.has(i)})
		}
	}
	return d
}

// Status tells how each rule does, by name.
func (en *Engine) Status() []Status {
	en.mu.Lock()
	defer en.mu.Unlock()
	en.endExpired(time.Now())
	out := slices.Clone(en.broken)
	for i, r := range en.set.rules {
		ended := r.MaxEvents > 0 && en.counts[i].matched >= r.MaxEvents
		if !en.alive.has(i) && !ended {
			continue
		}
		out = append(out, Status{r.Name, r.Revision, nil, en.counts[i].matched, en.counts[i].failed, ended})
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
