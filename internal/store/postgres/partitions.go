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
// to be there. Where one cannot be made since others are in its way, its rows
// are left to fail.
func (s *Store) addPartitions(ctx context.Context, c *pgx.Conn, t *tuples) error {
	if !t.table.partitioned {
		return nil
	}
	for _, hour := range t.table.missing(t.hours) {
		if err := s.addPartition(ctx, c, t.table.schema, t.table.name, time.Unix(hour*3600, 0)); err != nil {
			return err
		}
		t.table.has(hour)
	}
	return nil
}

// addPartition makes the partition for a time, if there is none.
func (s *Store) addPartition(ctx context.Context, c *pgx.Conn, schema, table string, at time.Time) error {
	at = at.UTC()
	hour := at.Truncate(time.Hour)
	if !s.options.Hourly {
		day := at.Truncate(24 * time.Hour)
		err := makePartition(ctx, c, schema, table, day, day.AddDate(0, 0, 1))
		if code(err) != overlaps {
			return inTheWay(err)
		}
		// Partitions of an hour were made before: so be it for this day.
	}
	return inTheWay(makePartition(ctx, c, schema, table, hour, hour.Add(time.Hour)))
}

func makePartition(ctx context.Context, c *pgx.Conn, schema, table string, lo, hi time.Time) error {
	_, err := c.Exec(ctx, `SELECT `+schema+`.siptrace_add_partition($1, $2, $3)`, table, lo, hi)
	return err
}

const (
	overlaps     = "42P17" // with a partition that is there: perhaps it covers the time
	nameTaken    = "42P07" // by something else
	notOurs      = "55000" // siptrace did not make the table
	advanceDays  = 2
	advanceHours = 3
)

// inTheWay passes over errors that no retry will cure.
func inTheWay(err error) error {
	switch code(err) {
	case overlaps, nameTaken, notOurs:
		return nil
	}
	return err
}

// Maintain makes the partitions of the time to come, so that no batch has to
// wait for it.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	return s.with(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, `SELECT current_schema()::text, name FROM trace_tables ORDER BY name`)
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
			for _, at := range s.ahead(time.Now()) {
				if err := s.addPartition(ctx, c, pgx.Identifier{n.Schema}.Sanitize(), n.Name, at); err != nil {
					errs = append(errs, fmt.Errorf("table %s: %w", n.Name, err))
				}
			}
		}
		return errors.Join(errs...)
	})
}

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

func (t *table) has(hour int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hours[hour] = struct{}{}
}
