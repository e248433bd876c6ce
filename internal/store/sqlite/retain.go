package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// Retain is what [store.Schema] promises. The file keeps its size: what is
// written next takes the room.
func (s *Schema) Retain(ctx context.Context, r store.Retention) (dropped []string, err error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	if r.Table != "" && r.Bytes > 0 {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, errTableSize)
	}
	if _, err := os.Stat(s.path); err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	c, err := connect(ctx, writerDSN(s.path, synchronousAck))
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	defer c.close()
	tables, err := c.retained(ctx, r.Table)
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	apply := c.retain
	if r.DryRun {
		apply = c.condemned
	}
	rows, err := apply(ctx, tables, r, time.Now())
	for _, table := range tables {
		if n := rows[table]; n > 0 {
			dropped = append(dropped, fmt.Sprintf("%s: %d rows", table, n))
		}
	}
	if err != nil {
		return dropped, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	return dropped, nil
}

// errTableSize is a [store.Retention] of one table by size: tables share the
// file and its pages.
var errTableSize = errors.New("retain: a size is that of the whole file; give the table an age, or the size to all tables")

// retained lists the trace tables that are there: all, or the one of that name.
func (c *conn) retained(ctx context.Context, only string) ([]string, error) {
	tables, err := c.texts(ctx, `SELECT t.name FROM trace_tables t JOIN sqlite_schema s ON s.type = 'table' AND s.name = t.name
		WHERE ?1 IN ('', t.name) ORDER BY t.name`, only)
	return slices.DeleteFunc(tables, func(name string) bool { return store.CheckTable(name) != nil }), err
}

// condemned returns how many rows of each table retain would delete. For a
// size that is reckoned from the rows' average.
func (c *conn) condemned(ctx context.Context, tables []string, r store.Retention, now time.Time) (rows map[string]int64, err error) {
	var before int64 = math.MinInt64
	if r.Age > 0 {
		before = now.Add(-r.Age).UnixMicro()
	}
	if r.Bytes > 0 {
		full, err := c.full(ctx, tables, r.Bytes)
		if err != nil {
			return nil, err
		}
		before = max(before, min(full, now.Add(-keepAnyway).UnixMicro()))
	}
	rows = make(map[string]int64)
	for _, table := range tables {
		if rows[table], err = c.number(ctx, `SELECT count(*) FROM "`+table+`" WHERE time_stamp < ?`, before); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// full is the time from which on the rows of all tables fill so many bytes, about.
func (c *conn) full(ctx context.Context, tables []string, bytes int64) (us int64, err error) {
	used, err := c.usedBytes(ctx)
	if err != nil || used <= bytes || len(tables) == 0 {
		return math.MinInt64, err
	}
	times := `SELECT time_stamp FROM "` + strings.Join(tables, `" UNION ALL SELECT time_stamp FROM "`) + `"`
	all, err := c.number(ctx, `SELECT count(*) FROM (`+times+`)`)
	if err != nil {
		return math.MinInt64, err
	}
	tooMuch := int64(float64(all) * float64(used-bytes) / float64(used))
	return c.number(ctx, `SELECT ifnull((`+times+` ORDER BY time_stamp LIMIT 1 OFFSET ?), `+strconv.FormatInt(math.MaxInt64, 10)+`)`, tooMuch)
}

const (
	deleteRows = 5000           // one transaction deletes: the writer waits for it
	keepAnyway = 24 * time.Hour // whatever the size
)

// retain deletes what r does not keep and returns how many rows of each table
// that were.
func (c *conn) retain(ctx context.Context, tables []string, r store.Retention, now time.Time) (rows map[string]int64, err error) {
	rows = make(map[string]int64)
	for _, table := range tables {
		for r.Age > 0 {
			n, err := c.deleteOldest(ctx, table, now.Add(-r.Age))
			rows[table] += n
			if err != nil {
				return rows, err
			}
			if n < deleteRows {
				break
			}
		}
	}
	for r.Bytes > 0 && len(tables) > 0 {
		used, err := c.usedBytes(ctx)
		if err != nil || used <= r.Bytes {
			return rows, err
		}
		before := now.Add(-keepAnyway)
		table, err := c.oldest(ctx, tables, before)
		if err != nil || table == "" {
			return rows, err
		}
		n, err := c.deleteOldest(ctx, table, before)
		rows[table] += n
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// oldest returns the table that has the oldest row of all from before a time,
// or "" where there is none.
func (c *conn) oldest(ctx context.Context, tables []string, before time.Time) (string, error) {
	first := make([]string, len(tables))
	for i, table := range tables {
		first[i] = `SELECT '` + table + `' AS name, min(time_stamp) AS first FROM "` + table + `"`
	}
	found, err := c.texts(ctx, `SELECT name FROM (`+strings.Join(first, ` UNION ALL `)+`) WHERE first < ? ORDER BY first LIMIT 1`, before.UnixMicro())
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0], nil
}

// deleteOldest deletes up to deleteRows rows from before a time, the oldest.
func (c *conn) deleteOldest(ctx context.Context, table string, before time.Time) (int64, error) {
	result, err := c.driver.ExecContext(ctx, `DELETE FROM "`+table+`" WHERE rowid IN
		(SELECT rowid FROM "`+table+`" WHERE time_stamp < ? ORDER BY time_stamp LIMIT ?)`,
		named([]driver.Value{before.UnixMicro(), int64(deleteRows)}))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// usedBytes is the size of the database without what was deleted.
func (c *conn) usedBytes(ctx context.Context) (int64, error) {
	return c.number(ctx, `SELECT (p.page_count - f.freelist_count) * s.page_size
		FROM pragma_page_count() AS p, pragma_freelist_count() AS f, pragma_page_size() AS s`)
}

// number runs a query for one number.
func (c *conn) number(ctx context.Context, query string, args ...driver.Value) (int64, error) {
	text, err := c.texts(ctx, `SELECT CAST((`+query+`) AS TEXT)`, args...)
	if err != nil || len(text) == 0 {
		return 0, err
	}
	return strconv.ParseInt(text[0], 10, 64)
}
