package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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
	err := s.write(ctx, b, events)
	if err != nil {
		s.failed(err)
		return err
	}
	rejected := b.rejections.Rejected()
	s.metrics.Committed(b.counts.rows, b.counts.duplicates, rejected, start)
	return b.rejections.Err()
}

func (s *Store) write(ctx context.Context, b *batch, events []trace.Event) error {
	if err := s.within(ctx, s.prepare); err != nil {
		return err
	}
	var c *pgxpool.Conn
	err := s.within(ctx, func(ctx context.Context) (err error) {
		c, err = s.pool.Acquire(ctx)
		return err
	})
	if err != nil {
		return s.explain(err)
	}
	defer c.Release()
	w := writing{store: s, batch: b, conn: c.Conn(), events: events}
	return s.explain(w.write(ctx))
}

// within gives a step its time: a server that does not answer holds a batch
// up no longer.
func (s *Store) within(ctx context.Context, step func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	return step(ctx)
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

	events  []trace.Event
	hold    bool // nobody may drop a partition between its making and the commit
	careful bool // go the careful way
}

// attempts is how often a batch is tried before it is given back.
const attempts = 4

// write puts the events in the database, or says why not. What can be put
// right at once is put right and the batch tried again.
func (w *writing) write(ctx context.Context) error {
	for n := 1; ; n++ {
		err := w.once(ctx)
		if err == nil || n == attempts {
			return err
		}
		switch judge(err) {
		case giveBack:
			return err
		case again:
			w.careful = true
		case stale:
			w.store.tables.forget(w.batch.tables()...)
		case noPartition: // dropped since it was made? the second time it is a row's fault
			w.careful, w.hold = w.careful || w.hold, true
			w.store.tables.forget(w.batch.tables()...)
		case careful:
			w.careful = true
			if code(err) != duplicate { // has somebody changed the table?
				w.store.tables.forget(w.batch.tables()...)
			}
		}
	}
}

// once tries to put the events in the database in one transaction.
func (w *writing) once(ctx context.Context) error {
	w.batch.reset()
	if w.hold {
		defer w.letGo(ctx)
	}
	if err := w.gather(ctx); err != nil {
		return err
	}
	if len(w.batch.tuples) == 0 {
		return nil
	}
	begin := "BEGIN"
	if w.store.options.Relaxed {
		begin = "BEGIN; SET LOCAL synchronous_commit TO off"
	}
	if _, err := w.exec(ctx, begin); err != nil {
		return err
	}
	err := w.put(ctx)
	if err == nil {
		_, err = w.exec(ctx, "COMMIT")
	}
	if err != nil && !w.conn.IsClosed() {
		_, _ = w.exec(ctx, "ROLLBACK") // the pool drops a connection where this fails
	}
	return err
}

// gather makes the batch's rows, and the partitions that they go to.
func (w *writing) gather(ctx context.Context) error {
	err := w.store.within(ctx, func(ctx context.Context) error {
		entries, err := w.entries(ctx)
		if err != nil {
			return err
		}
		w.batch.fill(w.events, entries, w.store.now())
		if w.hold {
			return w.holdPartitions(ctx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range w.batch.tuples {
		if err := w.store.addPartitions(ctx, w.conn, t); err != nil {
			return err
		}
	}
	return nil
}

// put sends the rows of every table.
func (w *writing) put(ctx context.Context) error {
	for i, t := range w.batch.tuples {
		if w.careful {
			p, err := w.patient(ctx, i)
			if err == nil {
				err = p.put(ctx)
			}
			if err != nil {
				return err
			}
			continue
		}
		n, err := w.copy(ctx, t, 0, len(t.at), t.table.ident)
		if err != nil {
			return err
		}
		w.batch.counts.rows += n
	}
	return nil
}

// copy sends rows lo up to hi of t and returns how many went in.
func (w *writing) copy(ctx context.Context, t *tuples, lo, hi int, target string) (rows int, err error) {
	if lo == hi {
		return 0, nil
	}
	err = w.store.within(ctx, func(ctx context.Context) error {
		tag, err := w.conn.PgConn().CopyFrom(ctx, t.reader(lo, hi), "COPY "+target+" ("+t.table.layout.names()+") FROM STDIN BINARY")
		rows = int(tag.RowsAffected())
		return err
	})
	return rows, err
}

// exec runs statements and returns how many rows the first of them was about.
func (w *writing) exec(ctx context.Context, sql string) (rows int, err error) {
	err = w.store.within(ctx, func(ctx context.Context) error {
		results, err := w.conn.PgConn().Exec(ctx, sql).ReadAll()
		if err == nil && len(results) > 0 {
			rows = int(results[0].CommandTag.RowsAffected())
		}
		return err
	})
	return rows, err
}

// entries returns what is known of each table that the events go to. Where the
// table of events that name none cannot be used, no event is to blame: that is
// an error.
func (w *writing) entries(ctx context.Context) (map[string]entry, error) {
	entries := make(map[string]entry, 1)
	var unseen []string
	last := ""
	for i := range w.events {
		name := w.batch.tableOf(&w.events[i])
		if name == last || w.events[i].Flags.Has(trace.NoStore) {
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
		if e.table == nil && name == w.store.options.Table {
			return nil, w.store.outage(e)
		}
		entries[name] = e
		if e.table != nil && e.table.layout == kamailio {
			w.store.log.Warn("table is Kamailio's own: events that are written again leave duplicates", "table", name)
		}
	}
	return entries, nil
}
