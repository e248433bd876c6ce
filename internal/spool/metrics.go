package spool

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics may be read while the disk hangs.
type metrics struct {
	all []prometheus.Collector

	spooled, drained, damagedFiles prometheus.Counter
	full, damaged                  prometheus.Counter

	bytes, frames, oldest atomic.Int64
}

func newMetrics(subsystem string) *metrics {
	const namespace = "siptrace"
	m := new(metrics)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string, value func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
		}, value))
	}
	m.spooled = counter("spooled_events_total", "Events written to the spool on disk.")
	m.drained = counter("spool_drained_events_total", "Events of the spool that are in the stream now.")
	m.damagedFiles = counter("spool_damaged_files_total", "Files of the spool that could not be read, or not all of them.")
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "spool_dropped_events_total",
		Help: "Events of the spool that were given up, by reason.",
	}, []string{"reason"})
	m.all = append(m.all, dropped)
	m.full, m.damaged = dropped.WithLabelValues("full"), dropped.WithLabelValues("damaged")

	gauge("spool_bytes", "Disk the spool takes.", func() float64 { return float64(m.bytes.Load()) })
	gauge("spool_frames", "Frames in the spool that are not in the stream yet.", func() float64 { return float64(m.frames.Load()) })
	gauge("spool_oldest_seconds", "How long the oldest frame has been in the spool, about.", func() float64 {
		at := m.oldest.Load()
		if at == 0 {
			return 0
		}
		return max(0, time.Since(time.UnixMicro(at)).Seconds())
	})
	return m
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range m.all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// measure brings the gauges up to date.
func (s *Spool) measure() {
	records, _ := s.left()
	s.metrics.bytes.Store(s.bytes)
	s.metrics.frames.Store(int64(records))
	oldest := s.handed.oldest()
	if oldest == 0 && len(s.files) > 0 {
		oldest = s.files[0].Since
	}
	s.metrics.oldest.Store(oldest)
}
