package postgres

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// Retain is what [store.Schema] promises. A partition is detached beside the
// writers and then dropped: they do not wait, but for the one that has a row
// for it. One process does it at a time.
func (s *Schema) Retain(ctx context.Context, r store.Retention) (dropped []string, err error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	err = s.with(ctx, func(c *pgx.Conn) error {
		if err := claim(ctx, c); err != nil {
			return err
		}
		defer release(ctx, c)
		for n := 1; ; n++ {
			more, err := s.pass(ctx, c, r)
			dropped = append(dropped, more...)
			if judge(err) != again || n == attempts {
				return err
			}
		}
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

// release lets another connection drop at once, and not only when the server
// has noticed that c is closed.
func release(ctx context.Context, c *pgx.Conn) {
	_, _ = c.Exec(ctx, `SELECT pg_advisory_unlock_all()`) // without a connection there is nothing to release
}

// pass drops what r does not keep, also where an earlier pass was broken off.
func (s *Schema) pass(ctx context.Context, c *pgx.Conn, r store.Retention) (dropped []string, err error) {
	list, err := listPartitions(ctx, c, r.Table)
	if err != nil {
		return nil, err
	}
	for _, p := range condemned(list, r, s.now()) {
		if !r.DryRun {
			if err := p.drop(ctx, c); err != nil {
				return dropped, fmt.Errorf("partition %s: %w", p.Name, err)
			}
		}
		dropped = append(dropped, fmt.Sprintf("%s: %d bytes, up to %s", p.Name, p.Bytes, p.Until.UTC().Format(time.DateTime)))
	}
	return dropped, nil
}

// A partition of a trace table.
type partition struct {
	Schema, Table, Name string
	Until               time.Time // what it holds is older
	Bytes               int64
	Pending             bool // a detaching of it was broken off
	Detached            bool // it was detached to be dropped, and is there still
}

// listPartitions lists partitions, the oldest first.
func listPartitions(ctx context.Context, c *pgx.Conn, table string) ([]partition, error) {
	rows, err := c.Query(ctx, partitionsOf, table, doomed)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[partition])
}

// doomed and a time is the comment on a partition that is being dropped. Only
// by it one that was detached is known from one that somebody keeps so.
const doomed = "siptrace drops this: up to "

const partitionsOf = `SELECT n.nspname::text, t.name, c.relname::text,
  substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz, coalesce(pg_total_relation_size(c.oid), 0),
  i.inhdetachpending, false
FROM trace_tables t
JOIN pg_namespace n ON n.nspname = current_schema()
JOIN pg_class p ON p.relname = t.name AND p.relnamespace = n.oid
JOIN pg_inherits i ON i.inhparent = p.oid
JOIN pg_class c ON c.oid = i.inhrelid
WHERE ($1 = '' OR t.name = $1) AND pg_get_expr(c.relpartbound, c.oid) ~ 'TO \(''[^'']+''\)'
UNION ALL
SELECT n.nspname::text, t.name, c.relname::text, substr(d.description, length($2) + 1)::timestamptz, coalesce(pg_total_relation_size(c.oid), 0),
  false, true
FROM trace_tables t
JOIN pg_namespace n ON n.nspname = current_schema()
JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r' AND NOT c.relispartition AND c.relname ~ ('^' || t.name || '_p[0-9]{8}(_[0-9]{1,2}){0,2}$')
JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND starts_with(d.description, $2)
WHERE $1 = '' OR t.name = $1
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

// numbered is the end of a partition's name where another had the plain one.
var numbered = regexp.MustCompile(`_[2-9]$`)

// drop drops a partition. Meanwhile nobody makes one of the same time: who has
// a row for it waits, and then makes it anew, see [writing.holdPartitions].
func (p *partition) drop(ctx context.Context, c *pgx.Conn) (err error) {
	const lock = `(hashtextextended('siptrace:' || $1::text || '.' || $2::text, 0))`
	stem := numbered.ReplaceAllString(p.Name, "")
	if _, err := c.Exec(ctx, `SELECT pg_advisory_lock`+lock, p.Schema, stem); err != nil {
		return err
	}
	leaf := pgx.Identifier{p.Schema, p.Name}.Sanitize()
	if !p.Detached {
		err = p.detach(ctx, c, leaf)
	}
	if err == nil {
		_, err = c.Exec(ctx, "DROP TABLE "+leaf)
	}
	if _, unlock := c.Exec(ctx, `SELECT pg_advisory_unlock`+lock, p.Schema, stem); err == nil {
		err = unlock
	}
	return err
}

func (p *partition) detach(ctx context.Context, c *pgx.Conn, leaf string) error {
	how := "FINALIZE"
	if !p.Pending {
		how = "CONCURRENTLY"
		mark := doomed + p.Until.UTC().Format(time.RFC3339)
		if _, err := c.Exec(ctx, "COMMENT ON TABLE "+leaf+" IS '"+mark+"'"); err != nil {
			return err
		}
	}
	_, err := c.Exec(ctx, "ALTER TABLE "+pgx.Identifier{p.Schema, p.Table}.Sanitize()+" DETACH PARTITION "+leaf+" "+how)
	return err
}
