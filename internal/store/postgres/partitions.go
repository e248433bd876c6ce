package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// addPartitions makes the partitions that t's rows need, unless they are known
// to be there. Where one cannot be made since others are in its way, that is
// noted, and its rows are left to fail.
func (s *Store) addPartitions(ctx context.Context, c *pgx.Conn, t *tuples) error {
	if !t.table.partitioned {
		return nil
	}
	for _, hour := range t.table.missing(t.hours) {
		err := s.within(ctx, func(ctx context.Context) error { // each has its time: a batch may need many
			return s.addPartition(ctx, c, t.table.schema, t.table.name, time.Unix(hour*3600, 0))
		})
		if err != nil && !inTheWay(err) {
			return err
		}
		t.table.has(hour, err == nil)
	}
	return nil
}

// addPartition makes the partition for a time, if there is none. An error that
// is [inTheWay] may mean that another one covers the time.
func (s *Store) addPartition(ctx context.Context, c *pgx.Conn, schema, table string, at time.Time) error {
	at = at.UTC()
	hour := at.Truncate(time.Hour)
	if !s.options.Hourly {
		day := at.Truncate(24 * time.Hour)
		err := makePartition(ctx, c, schema, table, day, day.AddDate(0, 0, 1))
		if code(err) != overlaps {
			return err
		}
		// Partitions of an hour were made before: so be it for this day.
	}
	return makePartition(ctx, c, schema, table, hour, hour.Add(time.Hour))
}

func makePartition(ctx context.Context, c *pgx.Conn, schema, table string, lo, hi time.Time) error {
	_, err := c.Exec(ctx, `SELECT `+schema+`.siptrace_add_partition($1, $2, $3)`, table, lo, hi)
	return err
}

// holdPartitions waits until nobody drops a partition that the batch goes to,
// and lets nobody begin, until letGo. The locks are those of
// siptrace_add_partition, taken in the same order by all.
func (w *writing) holdPartitions(ctx context.Context) error {
	var names []string
	layout := "_p20060102"
	if w.store.options.Hourly {
		layout = "_p20060102_15"
	}
	for _, t := range w.batch.tuples {
		for hour := range t.hours {
			names = append(names, t.table.name+time.Unix(hour*3600, 0).UTC().Format(layout))
		}
	}
	slices.Sort(names)
	_, err := w.conn.Exec(ctx, `SELECT pg_advisory_lock_shared(hashtextextended('siptrace:' || current_schema() || '.' || name, 0))
		FROM unnest($1::text[]) name`, slices.Compact(names))
	return err
}

// letGo ends what holdPartitions began.
func (w *writing) letGo(ctx context.Context) {
	if !w.conn.IsClosed() {
		_, _ = w.exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock_all()`) // the pool drops a connection where this fails
	}
}

const (
	overlaps     = "42P17" // with a partition that is there: perhaps it covers the time
	nameTaken    = "42P07" // by something else
	notOurs      = "55000" // siptrace did not make the table
	advanceDays  = 2
	advanceHours = 3
)

// inTheWay reports whether err is one that no retry will cure.
func inTheWay(err error) bool {
	switch code(err) {
	case overlaps, nameTaken, notOurs:
		return true
	}
	return false
}

// Maintain makes the partitions of the time to come, so that no batch has to
// wait for it.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return s.with(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, partitioned)
		if err != nil {
			return err
		}
		type tableName struct{ Schema, Name string }
		names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[tableName])
		if err != nil {
			return err
		}
		var errs []error
		for _, n := range names {
			for _, at := range s.ahead(s.now()) {
				err := s.addPartition(ctx, c, pgx.Identifier{n.Schema}.Sanitize(), n.Name, at)
				if err != nil && !inTheWay(err) {
					errs = append(errs, fmt.Errorf("table %s: %w", n.Name, err))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// partitioned lists the trace tables that partitions are made for. One that
// somebody has dropped is not among them.
const partitioned = `SELECT n.nspname::text, t.name FROM trace_tables t
JOIN pg_namespace n ON n.nspname = current_schema()
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name AND c.relkind = 'p'
ORDER BY t.name`

// ahead lists a time in each partition that is to be there.
func (s *Store) ahead(now time.Time) []time.Time {
	step, n := 24*time.Hour, advanceDays
	if s.options.Hourly {
		step, n = time.Hour, advanceHours
	}
	var list []time.Time
	for i := range n + 1 {
		list = append(list, now.Add(time.Duration(i)*step))
	}
	return list
}

// missing lists those of hours that are not known to have a partition, in order.
func (t *table) missing(hours map[int64]struct{}) []int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []int64
	for h := range maps.Keys(hours) {
		if _, ok := t.hours[h]; !ok {
			list = append(list, h)
		}
	}
	slices.Sort(list)
	return list
}

// has notes whether an hour's partition is there for certain.
func (t *table) has(hour int64, certain bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hours[hour] = certain
}

// barred reports whether an hour's partition could not be made.
func (t *table) barred(hour int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	certain, tried := t.hours[hour]
	return tried && !certain
}
