package forward

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons for which an event is not sent and need not be.
const (
	skipFlagged     = "no duplicate"  // the event says so
	skipAddressed   = "addressed"     // the event names its own destinations
	skipUnaddressed = "not addressed" // and here, it names none
	skipNotSIP      = "not sip"       // the destination takes SIP only
	skipLoop        = "loop"          // it would come back, or has come back
)

// Reasons for which an event cannot be sent, in rejections.
const (
	reasonTooLongUDP    = "too long for udp"
	reasonTooLongHEP    = "too long for hep"
	reasonMixedFamilies = "mixed address families"
	reasonNoAddresses   = "no addresses"
	reasonTime          = "time out of range"
	reasonNotEncodable  = "not encodable"
	reasonNotAllowed    = "destination not allowed"
	reasonBadURI        = "bad destination"
	reasonUnreachable   = "destination unreachable"
)

// What can go wrong on the way, and will be tried again.
const (
	troubleResolve = "resolve"
	troubleDial    = "dial"
	troubleWrite   = "write"
	troubleTimeout = "timeout" // no progress
	troubleLost    = "lost"    // the connection ended
	troubleRefused = "refused" // nobody listens on a UDP port
)

// metrics are those of all destinations.
type metrics struct {
	sent, bytes, fallback, connects *prometheus.CounterVec
	skipped, rejected, troubles     *prometheus.CounterVec
	connections                     *prometheus.GaugeVec
}

// newMetrics registers the metrics, or finds those that another destination
// has registered.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	for _, c := range []struct {
		to         **prometheus.CounterVec
		name, help string
		reason     bool
	}{
		{&m.sent, "events_sent_total", "Events sent; an event sent again counts again.", false},
		{&m.bytes, "bytes_sent_total", "Bytes of the packets sent.", false},
		{&m.fallback, "events_fallback_total", "Events too long for UDP that the fallback destination took.", false},
		{&m.connects, "connects_total", "Connections made to collectors.", false},
		{&m.skipped, "events_skipped_total", "Events that are not for the destination, by reason.", true},
		{&m.rejected, "events_rejected_total", "Events that cannot be sent, by reason. A batch that is tried again counts them again.", true},
		{&m.troubles, "errors_total", "What went wrong on the way and is tried again, by kind.", true},
	} {
		labels := []string{"destination"}
		if c.reason {
			labels = append(labels, "reason")
		}
		vec, err := register(reg, prometheus.NewCounterVec(
			prometheus.CounterOpts{Name: "siptrace_forwarder_" + c.name, Help: c.help}, labels))
		if err != nil {
			return nil, err
		}
		*c.to = vec
	}
	var err error
	m.connections, err = register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "siptrace_forwarder_connections",
		Help: "Connections to collectors that are up.",
	}, []string{"destination"}))
	return m, err
}

// register registers c, or returns the collector like it that is registered
// already: all destinations count in the same place.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	if reg == nil {
		return c, nil
	}
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if same, ok := already.ExistingCollector.(C); ok {
			return same, nil
		}
	}
	return c, err
}

// counters are the metrics of one destination.
type counters struct {
	sent, bytes, fallback, connects prometheus.Counter
	connections                     prometheus.Gauge
	skipFlagged, skipAddressed      prometheus.Counter
	skipUnaddressed, skipNotSIP     prometheus.Counter
	skipLoop                        prometheus.Counter

	label              string
	rejected, troubles *prometheus.CounterVec
}

// of returns the metrics of one destination.
func (m *metrics) of(label string) *counters {
	return &counters{
		sent:            m.sent.WithLabelValues(label),
		bytes:           m.bytes.WithLabelValues(label),
		fallback:        m.fallback.WithLabelValues(label),
		connects:        m.connects.WithLabelValues(label),
		connections:     m.connections.WithLabelValues(label),
		skipFlagged:     m.skipped.WithLabelValues(label, skipFlagged),
		skipAddressed:   m.skipped.WithLabelValues(label, skipAddressed),
		skipUnaddressed: m.skipped.WithLabelValues(label, skipUnaddressed),
		skipNotSIP:      m.skipped.WithLabelValues(label, skipNotSIP),
		skipLoop:        m.skipped.WithLabelValues(label, skipLoop),
		label:           label,
		rejected:        m.rejected,
		troubles:        m.troubles,
	}
}

// skip counts an event that is not for the destination. It does not allocate.
func (c *counters) skip(reason string) {
	switch reason {
	case skipFlagged:
		c.skipFlagged.Inc()
	case skipAddressed:
		c.skipAddressed.Inc()
	case skipUnaddressed:
		c.skipUnaddressed.Inc()
	case skipNotSIP:
		c.skipNotSIP.Inc()
	case skipLoop:
		c.skipLoop.Inc()
	}
}

// reject counts an event that cannot be sent.
func (c *counters) reject(reason string) { c.rejected.WithLabelValues(c.label, reason).Inc() }

// trouble counts what went wrong.
func (c *counters) trouble(kind string) { c.troubles.WithLabelValues(c.label, kind).Inc() }
