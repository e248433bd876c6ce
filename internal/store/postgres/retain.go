package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// Retain is what [store.Schema] promises. A partition is detached beside the
// writers and then dropped: they do not wait. One process does it at a time.
func (s *Schema) Retain(ctx context.Context, r store.Retention) (dropped []string, err error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	err = s.with(ctx, func(c *pgx.Conn) error {
		if err := claim(ctx, c); err != nil {
			return err
		}
		list, err := listPartitions(ctx, c, r.Table)
		if err != nil {
			return err
		}
		for _, p := range condemned(list, r, time.Now()) {
			if !r.DryRun {
				if err := p.drop(ctx, c); err != nil {
					return fmt.Errorf("partition %s: %w", p.Name, err)
				}
			}
			dropped = append(dropped, fmt.Sprintf("%s: %d bytes, up to %s", p.Name, p.Bytes, p.Until.UTC().Format(time.DateTime)))
		}
		return nil
	})
	return dropped, err
}

// claim makes c the one connection that drops; the end of c ends it.
func claim(ctx context.Context, c *pgx.Conn) error {
	var mine bool
	err := c.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtextextended('siptrace:retain:' || current_schema(), 0))`).Scan(&mine)
	if err == nil && !mine {
		err = store.ErrRetaining
	}
	return err
}

// A partition of a trace table.
type partition struct {
	Schema, Table, Name string
	Until               time.Time // what it holds is older
	Bytes               int64
	Pending             bool // a detaching of it was broken off
}

// listPartitions lists partitions, the oldest first.
func listPartitions(ctx context.Context, c *pgx.Conn, table string) ([]partition, error) {
	rows, err := c.Query(ctx, partitionsOf, table)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[partition])
}

const partitionsOf = `SELECT n.nspname::text, t.name, c.relname::text,
  substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz, pg_total_relation_size(c.oid), i.inhdetachpending
FROM trace_tables t
JOIN pg_namespace n ON n.nspname = current_schema()
JOIN pg_class p ON p.relname = t.name AND p.relnamespace = n.oid
JOIN pg_inherits i ON i.inhparent = p.oid
JOIN pg_class c ON c.oid = i.inhrelid
WHERE ($1 = '' OR t.name = $1) AND pg_get_expr(c.relpartbound, c.oid) ~ 'TO \(''[^'']+''\)'
ORDER BY 4, 3`

// condemned picks what r does not keep of list, the oldest first.
func condemned(list []partition, r store.Retention, now time.Time) []partition {
	var total int64
	for _, p := range list {
		total += p.Bytes
	}
	var drop []partition
	for _, p := range list {
		tooOld := r.Age > 0 && p.Until.Before(now.Add(-r.Age))
		tooMuch := r.Bytes > 0 && total > r.Bytes && p.Until.Before(now.Add(-24*time.Hour))
		if p.Pending || tooOld || tooMuch {
			drop = append(drop, p)
			total -= p.Bytes
		}
	}
	return drop
}

func (p *partition) drop(ctx context.Context, c *pgx.Conn) error {
	how := "CONCURRENTLY"
	if p.Pending {
		how = "FINALIZE"
	}
	leaf := pgx.Identifier{p.Schema, p.Name}.Sanitize()
	if _, err := c.Exec(ctx, "ALTER TABLE "+pgx.Identifier{p.Schema, p.Table}.Sanitize()+" DETACH PARTITION "+leaf+" "+how); err != nil {
		return err
	}
	_, err := c.Exec(ctx, "DROP TABLE "+leaf)
	return err
}
