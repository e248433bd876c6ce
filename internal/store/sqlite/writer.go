package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A writer is the connection that writes, with its statements and buffers.
type writer struct {
	*conn
	table  string // for events that name none
	create bool
	build  store.Builder
	args   rowArgs

	inserts map[string]*insert // by table
	refused map[string]refusal // tables that the batch in hand cannot use
}

// An insert is the statement that puts a row in a table.
type insert struct{ stmt statement }

// A refusal says why a table cannot be used.
type refusal struct {
	reason string
	err    error
}

func absent(table string) refusal {
	return refusal{store.UnknownTable, fmt.Errorf("table %s does not exist", table)}
}

// A tableError is that the table of events that name none cannot be used, for
// which no event is to blame.
type tableError struct {
	table string
	refusal
}

func (e *tableError) Error() string {
	switch {
	case e.reason != store.UnknownTable:
		return e.err.Error()
	case e.table == store.DefaultTable:
		return fmt.Sprintf("%v; ctl schema apply makes it", e.err)
	}
	return fmt.Sprintf("%v; ctl schema create-table %s makes it", e.err, e.table)
}

func (e *tableError) Unwrap() error { return e.err }

// An outcome is what became of a batch that was committed.
type outcome struct {
	rows, duplicates int
	rejections       store.Rejections
}

func newWriter(ctx context.Context, dsn, table string, create bool) (*writer, error) {
	c, err := connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	return &writer{
		conn:    c,
		table:   table,
		create:  create,
		args:    newRowArgs(),
		inserts: make(map[string]*insert),
		refused: make(map[string]refusal),
	}, nil
}

// write puts events in the database. When a table turns out not to be as it
// was, it is looked at again and the batch put in once more.
func (w *writer) write(ctx context.Context, events []trace.Event) (outcome, error) {
	out, err := w.transact(ctx, events)
	if class(err) == store.ClassSchema {
		out, err = w.transact(ctx, events)
	}
	return out, err
}

// transact puts events in the database in one transaction.
func (w *writer) transact(ctx context.Context, events []trace.Event) (outcome, error) {
	if err := w.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return outcome{}, err
	}
	clear(w.refused)
	var out outcome
	err := w.insertAll(ctx, events, &out)
	whole := context.WithoutCancel(ctx)
	if err == nil {
		err = w.exec(whole, "COMMIT")
	}
	if err != nil {
		_ = w.exec(whole, "ROLLBACK") // SQLite may have done it already
		w.forget()
		return outcome{}, err
	}
	return out, nil
}

// checkEvery is how many events go in between two looks at the context: a
// statement that watches it itself would cost a goroutine each.
const checkEvery = 256

func (w *writer) insertAll(ctx context.Context, events []trace.Event, out *outcome) error {
	for i := range events {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		rows := w.build.Rows(&events[i])
		if len(rows) == 0 {
			continue
		}
		in, refused, err := w.into(ctx, events[i].Table)
		switch {
		case err != nil:
			return err
		case in == nil && (events[i].Table == "" || events[i].Table == w.table):
			return &tableError{table: w.table, refusal: refused}
		case in == nil:
			out.rejections.Add(i, refused.reason, refused.err)
			continue
		}
		for j := range rows {
			added, err := w.insert(in, &rows[j])
			switch {
			case refusesRow(err):
				out.rejections.Add(i, store.Refused, err)
			case err != nil:
				return err
			case added:
				out.rows++
			default:
				out.duplicates++
			}
		}
	}
	return nil
}

// insert runs in for one row and reports whether it was new.
func (w *writer) insert(in *insert, r *store.Row) (added bool, err error) {
	w.args.set(r)
	result, err := in.stmt.ExecContext(context.Background(), w.args.values)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// into returns the statement for a table, or why there is none.
func (w *writer) into(ctx context.Context, table string) (*insert, refusal, error) {
	if table == "" {
		table = w.table
	}
	if in, ok := w.inserts[table]; ok {
		return in, refusal{}, nil
	}
	if r, ok := w.refused[table]; ok {
		return nil, r, nil
	}
	in, refused, err := w.look(ctx, table)
	switch {
	case err != nil:
	case in != nil:
		w.inserts[table] = in
	default:
		w.refused[table] = refused
	}
	return in, refused, err
}

// look finds out whether rows can be put in a table, and makes it if it may.
func (w *writer) look(ctx context.Context, table string) (*insert, refusal, error) {
	if err := store.CheckTable(table); err != nil {
		return nil, refusal{store.BadTableName, err}, nil
	}
	found, err := w.exists(ctx, table)
	if err != nil {
		return nil, refusal{}, err
	}
	if !found {
		if !w.create || table == store.DefaultTable { // which is the model of all others: ctl schema apply makes it
			return nil, absent(table), nil
		}
		err := w.createTable(ctx, table)
		switch {
		case errors.Is(err, errNewTable):
			return nil, refusal{store.UnknownTable, err}, nil
		case err != nil:
			return nil, refusal{}, err
		}
	}
	stmt, err := w.prepare(ctx, fmt.Sprintf(insertRow, table))
	if class(err) == store.ClassSchema {
		return nil, refusal{store.WrongColumns, err}, nil
	}
	if err != nil {
		return nil, refusal{}, err
	}
	return &insert{stmt}, refusal{}, nil
}

// forget drops all statements, for tables may have come or gone.
func (w *writer) forget() {
	for table, in := range w.inserts {
		_ = in.stmt.Close()
		delete(w.inserts, table)
	}
}

func (w *writer) close() error {
	w.forget()
	return w.conn.close()
}

// Only the primary key makes a row a duplicate. OR IGNORE would pass over
// whatever else a table may demand, and lose the row without a word.
const insertRow = `INSERT INTO "%s" (` + rowColumns + `)
 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
 ON CONFLICT (time_stamp, event_id, traced_user) DO NOTHING`

const rowColumns = `id, time_stamp, time_us, callid, traced_user, msg, method, status, fromip, toip, fromtag, totag, direction,
  event_id, node, transport, cseq, correlation_id, from_user, to_user, ruri_user`

// rowArgs are the parameters of insertRow, used again for each row.
type rowArgs struct {
	values []driver.NamedValue
}

func newRowArgs() rowArgs {
	return rowArgs{named(make([]driver.Value, 21))}
}

// set makes the parameters those of r.
func (a *rowArgs) set(r *store.Row) {
	v := a.values
	v[0].Value = r.ID
	v[1].Value = r.Time.UnixMicro()
	v[2].Value = int64(r.TimeUS())
	v[3].Value = string(r.CallID)
	v[4].Value = string(r.TracedUser)
	v[5].Value = blob(r.Msg)
	v[6].Value = string(r.Method)
	v[7].Value = string(r.Status)
	v[8].Value = string(r.FromIP)
	v[9].Value = string(r.ToIP)
	v[10].Value = string(r.FromTag)
	v[11].Value = string(r.ToTag)
	v[12].Value = r.Direction.String()
	v[13].Value = r.EventID[:]
	v[14].Value = string(r.Node)
	v[15].Value = r.Transport.String()
	v[16].Value = r.CSeq
	v[17].Value = string(r.CorrelationID)
	v[18].Value = string(r.FromUser)
	v[19].Value = string(r.ToUser)
	v[20].Value = string(r.RURIUser)
}

// blob is b, which may be nil, as a value that is not NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
