package trace

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"
)

// A Source produces events. Run writes what it captures to sink until the
// input ends or ctx is done; both are a nil return.
type Source interface {
	Run(ctx context.Context, sink Sink) error
}

// A Sink accepts events. Write returns nil only when every event is safe on
// the far side, so that the caller may forget them. After a [Rejected] every
// event is safe but those it lists, which no retry can cure. After any other
// error none may be forgotten, and writing the same events again does no harm.
// Write keeps neither the slice nor anything the events point to.
type Sink interface {
	Write(ctx context.Context, events []Event) error
}

// SinkFunc lets a function be a [Sink].
type SinkFunc func(ctx context.Context, events []Event) error

// Write calls f.
func (f SinkFunc) Write(ctx context.Context, events []Event) error { return f(ctx, events) }

// A Finder yields stored events that match a query, in time order; an error
// comes last. An event yielded is the caller's to keep.
type Finder interface {
	Find(ctx context.Context, q Query) iter.Seq2[Event, error]
}

// A Query says which stored events are wanted. Every field that is set must
// match; the zero Query matches everything in the default table.
type Query struct {
	From, To time.Time    // capture time: From ≤ t < To; zero is unbounded
	CallID   string       // exact Call-ID
	User     string       // exact user of From, To or request URI, or a traced user
	Method   string       // request method, or CSeq method of a reply
	Addr     netip.Prefix // source or destination address
	Port     uint16       // with Addr: the port of the same side; 0 is any
	Table    string       // empty is the store's default table
	Limit    int          // the newest Limit rows that match, still in time order; 0 is all
}

// ErrPermanent marks an error that no retry can cure. A Sink wraps it when a
// whole batch is refused for good.
var ErrPermanent = errors.New("refused for good")

// A Rejection is one event that a Sink refused for good.
type Rejection struct {
	Index  int    // place of the event in the slice given to Write
	Reason string // a short constant phrase, fit for a metric label: "unknown table"
	Err    error  // the far side's own words; may be nil
}

// Rejected is the error of a Write that made every event safe but those listed.
type Rejected []Rejection

func (r Rejected) Error() string {
	if len(r) == 0 {
		return "no event rejected"
	}
	first := r[0].Reason
	if r[0].Err != nil {
		first += ": " + r[0].Err.Error()
	}
	if len(r) == 1 {
		return "1 event rejected: " + first
	}
	return fmt.Sprintf("%d events rejected, the first: %s", len(r), first)
}

// Unwrap reports that rejections are permanent.
func (r Rejected) Unwrap() error { return ErrPermanent }
