package listen

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// A drop is a reason for which something sent to us became no event.
type drop int

// The reasons, and the label each has in the metrics.
const (
	_               drop = iota
	dropKernel           // the socket's buffer was full
	dropEmpty            // a datagram of no bytes
	dropNotHEP           // neither HEP1, HEP2 nor HEP3
	dropTruncated        // ends before its payload does
	dropLength           // states an impossible length
	dropFamily           // states an unknown address family
	dropChunk            // a chunk does not fit
	dropTooLong          // longer than any HEP packet
	dropInflate          // compressed payload that does not inflate
	dropNoPayload        // nothing is traced in it
	dropAuth             // not the key we ask for
	dropStream           // a stream that is out of step, or never was HEP
	dropTimeout          // a packet on a stream that took too long
	dropLoop             // has been in this fleet's stream, or goes round in circles
	dropIgnored          // of a sender to be ignored
	dropNoXHeaders       // plain SIP without X-Siptrace headers
	dropBadXHeaders      // plain SIP whose X-Siptrace headers name no addresses
	dropSink             // the sink refused it
	numDrops
)

var dropLabels = [numDrops]string{
	dropKernel:    "kernel",
	dropEmpty:     "empty",
	dropNotHEP:    "not hep",
	dropTruncated: "truncated",
	dropLength:    "bad length",
	dropFamily:    "unknown family",
	dropChunk:     "bad chunk",
	dropTooLong:   "too long",
	dropInflate:   "bad compression",
	dropNoPayload: "no payload",
	dropAuth:      "auth",
	dropStream:    "out of step",
	dropTimeout:   "timeout",
	dropLoop:      "loop",
	dropIgnored:   "ignored sender",
	dropSink:      "sink",

	dropNoXHeaders:  "no x-siptrace headers",
	dropBadXHeaders: "bad x-siptrace headers",
}

// String is the label of the metrics.
func (d drop) String() string { return dropLabels[d] }

// dropOf is the reason for an error of the decoder on a packet of size bytes.
func dropOf(err error, size int) drop {
	var chunk *hep.ChunkError
	switch {
	case size == 0:
		return dropEmpty
	case errors.As(err, &chunk):
		return dropChunk
	case errors.Is(err, hep.ErrTruncated):
		return dropTruncated
	case errors.Is(err, hep.ErrLength):
		return dropLength
	case errors.Is(err, hep.ErrFamily):
		return dropFamily
	case errors.Is(err, hep.ErrInflate):
		return dropInflate
	}
	return dropNotHEP
}

// counters are the metrics of one source.
type counters struct {
	packets prometheus.Counter
	bytes   prometheus.Counter
	events  prometheus.Counter
	dropped [numDrops]prometheus.Counter
}

// newCounters registers the metrics of the source of HEP that listens at url.
// Several sources share the vectors.
func newCounters(reg prometheus.Registerer, url string) (*counters, error) {
	return countersOf(reg, url, "hep", "HEP packets", "HEP")
}

// newSIPCounters is newCounters for a source of plain SIP.
func newSIPCounters(reg prometheus.Registerer, url string) (*counters, error) {
	return countersOf(reg, url, "sip", "plain-SIP duplicates", "plain SIP")
}

func countersOf(reg prometheus.Registerer, url, kind, packets, what string) (*counters, error) {
	c := &counters{}
	for _, m := range []struct {
		to         *prometheus.Counter
		name, help string
	}{
		{&c.packets, "packets", packets + " received, good or bad."},
		{&c.bytes, "bytes", "Bytes of " + what + " received."},
		{&c.events, "events", "Events made of " + packets + " and handed on."},
	} {
		vec, err := register(reg, prometheus.NewCounterVec(
			prometheus.CounterOpts{Name: "siptrace_tap_" + kind + "_" + m.name + "_total", Help: m.help}, []string{"source"}))
		if err != nil {
			return nil, err
		}
		*m.to = vec.WithLabelValues(url)
	}
	vec, err := register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "siptrace_tap_" + kind + "_dropped_total",
		Help: packets + " that became no event, by reason.",
	}, []string{"source", "reason"}))
	if err != nil {
		return nil, err
	}
	for d := dropKernel; d < numDrops; d++ {
		c.dropped[d] = vec.WithLabelValues(url, d.String())
	}
	return c, nil
}

// connCounters are the metrics of the connections of one source.
type connCounters struct {
	open              prometheus.Gauge
	accepted, refused prometheus.Counter
}

// newConnCounters registers them.
func newConnCounters(reg prometheus.Registerer, url string) (*connCounters, error) {
	open, err := register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "siptrace_tap_hep_connections",
		Help: "Connections of HEP agents that are open.",
	}, []string{"source"}))
	if err != nil {
		return nil, err
	}
	made, err := register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "siptrace_tap_hep_connections_total",
		Help: "Connections of HEP agents that came, by what became of them: accepted or refused.",
	}, []string{"source", "result"}))
	if err != nil {
		return nil, err
	}
	return &connCounters{
		open:     open.WithLabelValues(url),
		accepted: made.WithLabelValues(url, "accepted"),
		refused:  made.WithLabelValues(url, "refused"),
	}, nil
}

// register registers c, or returns the collector like it that is registered
// already: sources of a kind count in the same place.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if same, ok := already.ExistingCollector.(C); ok {
			return same, nil
		}
	}
	return c, err
}
