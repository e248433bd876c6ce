package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

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
// by several goroutines at once. An event that names a table that is not there
// is refused; while the table of events that name none is not there, or has
// other columns, Write fails, and nothing is lost.
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

	// Apply brings the database to the newest version, and makes what somebody
	// has dropped of it: empty. Applying again, or from several processes at
	// once, does no harm.
	Apply(ctx context.Context) error

	// Status tells which version the database has. It changes nothing.
	Status(ctx context.Context) (Status, error)

	// CreateTable makes a trace table of another name and its view for
	// people, unless it is there. One that was dropped by hand is made again.
	CreateTable(ctx context.Context, name string) error

	// Retain drops what r does not keep, and tells what that was, line by
	// line for a person. It may be called while the database is written to.
	Retain(ctx context.Context, r Retention) (dropped []string, err error)

	io.Closer
}

// A Retention says what a database keeps. PostgreSQL drops whole partitions,
// so that up to a day more may stay.
type Retention struct {
	Table string        // one trace table; empty is all of them
	Age   time.Duration // what was captured within it is kept; 0 is for ever
	Bytes int64         // as much is kept, the newest, and the last 24 hours' at any rate; 0 is any amount

	DryRun bool // say what would go, and drop nothing
}

// ErrRetention is a Retention that would drop everything, or nothing.
var ErrRetention = errors.New("retain: give an age, a size or both, above nought")

// ErrRetaining says that another process is dropping what is old right now.
var ErrRetaining = errors.New("another process is dropping old data now")

// Check reports why r makes no sense.
func (r Retention) Check() error {
	if r.Age < 0 || r.Bytes < 0 || r.Age == 0 && r.Bytes == 0 {
		return ErrRetention
	}
	if r.Table == "" {
		return nil
	}
	return CheckTable(r.Table)
}

// Status is what a [Schema] finds in a database.
type Status struct {
	Version int64    // 0 when nothing was applied
	Newest  int64    // what Apply leads to
	Tables  []string // the trace tables, by name
	Missing []string // what was applied and is not there now: "table sip_trace", "view sip_trace_text"
}

// Current reports whether there is nothing to apply.
func (s Status) Current() bool { return s.Version == s.Newest && len(s.Missing) == 0 }
