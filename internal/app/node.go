package app

import (
	"context"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// A nodeReport is what a service tells ctl status about itself.
type nodeReport struct {
	gate  *Gate         // nil for services that the global state does not concern
	rules *rules.Engine // likewise

	listens, sends func() []string // where it takes events, and how it sends plain SIP; nil is nowhere

	counts map[string]string // key of the report: prefix of the metrics that it sums up
	checks []telemetry.Check
}

// serveNode lets ctl status find this service for as long as the app lives.
func serveNode(lc fx.Lifecycle, c *bus.Conn, reg prometheus.Gatherer, log *slog.Logger, info bus.NodeInfo, r nodeReport) {
	info.Version = Version
	var node *bus.Node
	lc.Append(fx.StartStopHook(
		func() {
			var err error
			if node, err = bus.ServeNode(c, info, func() bus.NodeStatus { return r.status(reg, log) }); err != nil {
				log.Warn("ctl status will not find this process", "err", err)
			}
		},
		func() {
			if node != nil {
				_ = node.Stop() // the connection ends next
			}
		},
	))
}

// status is the report as of now.
func (r nodeReport) status(reg prometheus.Gatherer, log *slog.Logger) bus.NodeStatus {
	st := bus.NodeStatus{StateOn: true, Counters: make(map[string]uint64)}
	if r.gate != nil {
		st.StateOn, st.Revision = r.gate.Open(), r.gate.Revision()
	}
	if r.rules != nil {
		st.Rules = ruleStatuses(r.rules)
	}
	if r.listens != nil {
		st.Listens = r.listens()
	}
	if r.sends != nil {
		st.Sends = r.sends()
	}
	totals, err := counters(reg)
	if err != nil {
		log.Warn("metrics not gathered", "err", err)
	}
	for key, names := range r.counts {
		for name := range strings.FieldsSeq(names) {
			st.Counters[key] += totals[name]
		}
	}
	st.Waiting = strings.Join(telemetry.Waiting(context.Background(), r.checks), "; ")
	return st
}

// counters returns the sum of every counter and gauge over its labels.
func counters(reg prometheus.Gatherer) (map[string]uint64, error) {
	families, err := reg.Gather()
	totals := make(map[string]uint64, len(families))
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if c := m.GetCounter(); c != nil {
				totals[f.GetName()] += uint64(c.GetValue())
			}
			if g := m.GetGauge(); g != nil {
				totals[f.GetName()] += uint64(max(0, g.GetValue()))
			}
		}
	}
	return totals, err
}
