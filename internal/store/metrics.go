package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Metrics counts what a store writes.
type Metrics struct {
	rows, batches, duplicates prometheus.Counter
	rejected, retries         *prometheus.CounterVec
	flush                     prometheus.Histogram
}

// NewMetrics registers the metrics with reg. A nil reg counts for nobody.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		rows: f.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_db_writer_rows_total",
			Help: "Rows committed to the database, without those that were there already.",
		}),
		batches: f.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_db_writer_batches_total",
			Help: "Batches committed to the database.",
		}),
		duplicates: f.NewCounter(prometheus.CounterOpts{
			Name: "siptrace_db_writer_duplicates_total",
			Help: "Rows skipped since the database had them already.",
		}),
		rejected: f.NewCounterVec(prometheus.CounterOpts{
			Name: "siptrace_db_writer_rejected_total",
			Help: "Events refused for good, by reason.",
		}, []string{"reason"}),
		retries: f.NewCounterVec(prometheus.CounterOpts{
			Name: "siptrace_db_writer_retries_total",
			Help: "Batches that failed and have to be written again, by class of error.",
		}, []string{"class"}),
		flush: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "siptrace_db_writer_flush_seconds",
			Help:    "Time from a batch's arrival at the store to its commit.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}),
	}
}

// Committed counts a batch that is safe.
func (m *Metrics) Committed(rows, duplicates int, rejected trace.Rejected, since time.Time) {
	m.batches.Inc()
	m.rows.Add(float64(rows))
	m.duplicates.Add(float64(duplicates))
	for _, r := range rejected {
		m.rejected.WithLabelValues(r.Reason).Inc()
	}
	m.flush.Observe(time.Since(since).Seconds())
}

// Failed counts a batch that has to be written again.
func (m *Metrics) Failed(class string) { m.retries.WithLabelValues(class).Inc() }

// What kept a batch from being written: the values of the label class.
const (
	ClassConnection = "connection" // the server is away, or went away
	ClassConflict   = "conflict"   // another transaction is in the way
	ClassResources  = "resources"  // disk, memory or connections are used up
	ClassPermission = "permission" // the password or a right is wrong
	ClassSchema     = "schema"     // a table is missing or not as it should be
	ClassOther      = "other"
)
