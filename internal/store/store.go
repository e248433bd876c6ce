package store

import (
	"context"
	"io"
	"iter"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// DefaultTable is where an event goes that names no table.
const DefaultTable = "sip_trace"

// MaxTables is how many trace tables a store makes at most, so that names
// under a stranger's control cannot fill the catalogue.
const MaxTables = 200

// Why a store refuses an event for good: the values of [trace.Rejection.Reason].
const (
	UnknownTable   = "unknown table"
	BadTableName   = "bad table name"
	WrongColumns   = "wrong columns"
	TimeOutOfRange = "time out of range"
	Refused        = "refused by the database"
)

// A Store keeps events as rows of a database, and finds them again.
//
// Write is one transaction: it returns nil after the commit. It may be called
// by several goroutines at once.
type Store interface {
	trace.Sink

	// Find yields events: the rows of one event are one event again, with all
	// of its traced users, and a Query's Limit counts events.
	trace.Finder

	// Rows yields the rows that match q, ordered by the primary key. A Limit
	// counts rows.
	Rows(ctx context.Context, q trace.Query) iter.Seq2[Row, error]

	// Ready reports whether rows can be written to the default table now, and
	// if not, why, in one line for a person.
	Ready(ctx context.Context) error

	// Maintain does what has to be done now and then: partitions made ahead,
	// a log file folded back. Several processes may call it at once.
	Maintain(ctx context.Context) error

	io.Closer
}

// A Schema makes and describes the tables of a database.
type Schema interface {
	// Print returns the SQL that does by hand what Apply does on an empty database.
	Print() (string, error)

	// Apply brings the database to the newest version. Applying again, or
	// from several processes at once, does no harm.
	Apply(ctx context.Context) error

	// Status tells which version the database has. It changes nothing.
	Status(ctx context.Context) (Status, error)

	// CreateTable makes a trace table of another name and its view for
	// people, unless it is there.
	CreateTable(ctx context.Context, name string) error

	io.Closer
}

// Status is what a [Schema] finds in a database.
type Status struct {
	Version int64    // 0 when nothing was applied
	Newest  int64    // what Apply leads to
	Tables  []string // the trace tables, by name
}

// Current reports whether there is nothing to apply.
func (s Status) Current() bool { return s.Version == s.Newest }
