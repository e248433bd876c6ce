package rules

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what rules do on a tap.
type metrics struct {
	failed prometheus.Counter
	cut    prometheus.Counter
}

// newMetrics registers the metrics of an engine. What the engine holds is read
// when somebody asks.
func newMetrics(reg prometheus.Registerer, en *Engine) (*metrics, error) {
	m := &metrics{
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_tap_rule_failures_total",
			Help: "Events about which the expression of a rule came to no answer; they count as no match.",
		}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_tap_rule_routes_cut_total",
			Help: "Users and destinations left out because rules together wanted too many for one event.",
		}),
	}
	read := func(f func() int) func() float64 {
		return func() float64 {
			en.mu.Lock()
			defer en.mu.Unlock()
			return float64(f())
		}
	}
	for _, c := range []prometheus.Collector{
		m.failed, m.cut,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "siptrace_tap_rules", Help: "Rules that count now.",
		}, read(func() int {
			en.endExpired(time.Now()) // no message may have come since
			return en.living()
		})),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "siptrace_tap_rules_ignored", Help: "Rules that are stored and are no good.",
		}, read(func() int { return len(en.broken) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "siptrace_tap_dialogs", Help: "Call-IDs that rules follow.",
		}, read(func() int { return en.dialogs.len() })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "siptrace_tap_dialogs_evicted_total",
			Help: "Call-IDs that are not followed any more because there were too many.",
		}, read(func() int { return int(en.dialogs.evicted) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "siptrace_tap_dialogs_expired_total",
			Help: "Call-IDs that are not followed any more because they have been silent for too long.",
		}, read(func() int { return int(en.dialogs.expired) })),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// living is how many rules have not ended.
func (en *Engine) living() int {
	n := 0
	for i := range en.set.rules {
		if en.alive.has(i) {
			n++
		}
	}
	return n
}
