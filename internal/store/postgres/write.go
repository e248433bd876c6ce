package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Write is what [store.Store] promises. An error that is not a
// [trace.Rejected] is an [*Error], or that of ctx.
func (s *Store) Write(ctx context.Context, events []trace.Event) error {
	if len(events) == 0 {
		return nil
	}
	if s.readOnly {
		return fmt.Errorf("postgres %s: open for reading: %w", s.server, trace.ErrPermanent)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	var b *batch
	select {
	case b = <-s.batches:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		b.reset()
		s.batches <- b
	}()
	err := s.prepare(ctx)
	if err == nil {
		err = s.with(ctx, func(c *pgx.Conn) error {
			w := writing{store: s, batch: b, conn: c}
			return w.write(ctx, events)
		})
	}
	if err != nil {
		s.failed(err)
		return err
	}
	rejected := b.rejections.Rejected()
	s.metrics.Committed(b.counts.rows, b.counts.duplicates, rejected, start)
	return b.rejections.Err()
}

func (s *Store) failed(err error) {
	var e *Error
	if errors.As(err, &e) {
		s.metrics.Failed(e.Class)
	}
}

// A writing is one Write in progress.
type writing struct {
	store *Store
	batch *batch
	conn  *pgx.Conn

	careful bool // go the careful way
	last    bool // what fails now is not tried again
}

// attempts is how often a batch is tried before it is given back.
const attempts = 4

// write puts events in the database, or says why not. What can be put right
// at once is put right and the batch tried again.
func (w *writing) write(ctx context.Context, events []trace.Event) error {
	for n := 1; ; n++ {
		w.last = n == attempts
		err := w.once(ctx, events)
		if err == nil || w.last {
			return err
		}
		switch judge(err) {
		case giveBack:
			return err
		case stale:
			w.store.tables.forget(w.batch.tables()...)
		case noPartition:
			for _, t := range w.batch.tuples {
				t.table.forgetPartitions()
			}
			w.careful = true
		case careful, again:
			w.careful = true
		}
	}
}

// once tries to put events in the database in one transaction.
func (w *writing) once(ctx context.Context, events []trace.Event) error {
	w.batch.reset()
	entries, err := w.entries(ctx, events)
	if err != nil {
		return err
	}
	w.batch.fill(events, entries)
	for _, t := range w.batch.tuples {
		if err := w.store.addPartitions(ctx, w.conn, t); err != nil {
			return err
		}
	}
	if len(w.batch.tuples) == 0 {
		return nil
	}
	return w.transact(ctx, func() error {
		for i, t := range w.batch.tuples {
			if len(t.at) == 0 {
				continue
			}
			if err := w.put(ctx, i, t); err != nil {
				return err
			}
		}
		return nil
	})
}

// put sends the rows of one table.
func (w *writing) put(ctx context.Context, i int, t *tuples) error {
	if w.careful {
		return w.putCarefully(ctx, i, t)
	}
	tag, err := w.conn.PgConn().CopyFrom(ctx, t.reader(0, len(t.at)), t.table.copyIn(t.table.ident))
	w.batch.counts.rows += int(tag.RowsAffected())
	return err
}

// transact runs do in a transaction.
func (w *writing) transact(ctx context.Context, do func() error) error {
	begin := "BEGIN"
	if w.store.options.Relaxed {
		begin = "BEGIN; SET LOCAL synchronous_commit TO off"
	}
	if _, err := w.exec(ctx, begin); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = w.exec(ctx, "COMMIT")
	}
	if err != nil && !w.conn.IsClosed() {
		_, _ = w.exec(ctx, "ROLLBACK") // the pool drops a connection where this fails
	}
	return err
}

// exec runs statements that return no rows and returns the tag of the last.
func (w *writing) exec(ctx context.Context, sql string) (pgconn.CommandTag, error) {
	results, err := w.conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return pgconn.CommandTag{}, err
	}
	return results[len(results)-1].CommandTag, nil
}

// entries returns what is known of each table that events go to.
func (w *writing) entries(ctx context.Context, events []trace.Event) (map[string]entry, error) {
	entries := make(map[string]entry, 1)
	var unseen []string
	last := ""
	for i := range events {
		name := w.batch.tableOf(&events[i])
		if name == last {
			continue
		}
		last = name
		if _, ok := entries[name]; ok {
			continue
		}
		if err := store.CheckTable(name); err != nil {
			entries[name] = entry{reason: store.BadTableName, err: err}
			continue
		}
		e, ok := w.store.tables.known(name)
		if !ok {
			unseen = append(unseen, name)
		}
		entries[name] = e
	}
	if len(unseen) == 0 {
		return entries, nil
	}
	found, err := w.store.tables.load(ctx, w.conn, unseen, w.store.options.CreateTables)
	if err != nil {
		return nil, err
	}
	for name, e := range found {
		entries[name] = e
		if e.table != nil && e.table.layout == kamailio {
			w.store.log.Warn("table is Kamailio's own: events that are written again leave duplicates", "table", name)
		}
	}
	return entries, nil
}
