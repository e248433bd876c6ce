package store

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options say how a database is opened. The zero value is the ordinary case.
type Options struct {
	Table        string // for events that name none; DefaultTable if empty
	CreateTables bool   // make a table that an event names, instead of refusing the event
	NoSchema     bool   // leave it to ctl schema apply to make and upgrade the tables
	Relaxed      bool   // do not wait for the disk: a crash may take the last commits with it
	Registerer   prometheus.Registerer
	Log          *slog.Logger

	// For PostgreSQL alone.
	Connections int           // that write at once; 0 is DefaultConnections
	Hourly      bool          // partitions of an hour instead of a day
	Past        time.Duration // how old a captured message may be; 0 is DefaultPast
	Future      time.Duration // how far ahead its time may be; 0 is DefaultFuture
	Timeout     time.Duration // for one statement of a Write; 0 is DefaultTimeout
}

// The defaults of [Options].
const (
	DefaultConnections = 2
	DefaultPast        = 10 * 366 * 24 * time.Hour
	DefaultFuture      = 2 * 24 * time.Hour
	DefaultTimeout     = 30 * time.Second
)

// WithDefaults returns o with what was left zero filled in, or says what is wrong with it.
func (o Options) WithDefaults() (Options, error) {
	if o.Table == "" {
		o.Table = DefaultTable
	}
	if o.Connections <= 0 {
		o.Connections = DefaultConnections
	}
	if o.Past <= 0 {
		o.Past = DefaultPast
	}
	if o.Future <= 0 {
		o.Future = DefaultFuture
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return o, CheckNewTable(o.Table)
}
