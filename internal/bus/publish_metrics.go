package bus

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const namespace = "siptrace"

// Why an accepted event did not get into the stream.
const (
	dropUnencodable = "unencodable" // HEP3 cannot carry it
	dropTooLarge    = "too large"   // for the server, even alone in its frame
	dropShutdown    = "shutdown"    // not acknowledged when the program had to end
	dropUnreadable  = "unreadable"  // what came back from the spool, or had to be divided, is no frame of ours
)

type publishMetrics struct {
	events, frames, bytes, retries prometheus.Counter
	dropped                        *prometheus.CounterVec
}

func newPublishMetrics(reg prometheus.Registerer, p *Publisher) *publishMetrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: p.opts.Subsystem, Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: p.opts.Subsystem, Name: name, Help: help}, value)
	}
	gauge("buffer_bytes", "Memory of frames that are not yet in the stream.", func() float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return float64(p.held)
	})
	gauge("unacked_frames", "Frames published and not yet acknowledged.", func() float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return float64(len(p.flight))
	})
	if p.spooling != nil {
		gauge("spool_failing", "1 while the spool takes nothing: full, or its disk is. Frames stay in memory then.", func() float64 {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.spooling.failing != nil {
				return 1
			}
			return 0
		})
	}
	m := &publishMetrics{
		events:  counter("published_events_total", "Events acknowledged by the stream."),
		frames:  counter("published_frames_total", "Frames acknowledged by the stream."),
		bytes:   counter("published_bytes_total", "Bytes of frames acknowledged by the stream."),
		retries: counter("publish_retries_total", "Frames that had to be published again."),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: p.opts.Subsystem, Name: "publish_dropped_events_total",
			Help: "Events accepted and then lost before the stream, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{dropUnencodable, dropTooLarge, dropShutdown, dropUnreadable} {
		m.dropped.WithLabelValues(reason)
	}
	return m
}

func (m *publishMetrics) published(events, bytes int) {
	m.events.Add(float64(events))
	m.frames.Inc()
	m.bytes.Add(float64(bytes))
}

func (m *publishMetrics) drop(reason string, events int) {
	m.dropped.WithLabelValues(reason).Add(float64(events))
}
