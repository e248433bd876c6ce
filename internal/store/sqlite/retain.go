package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// Retain is what [store.Schema] promises. The file keeps its size: what is
// written next takes the room.
func (s *Schema) Retain(ctx context.Context, r store.Retention) (dropped []string, err error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.path); err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	c, err := connect(ctx, writerDSN(s.path, synchronousAck))
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	defer c.close()
	tables, err := c.texts(ctx, `SELECT name FROM trace_tables ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	for _, table := range tables {
		if r.Table != "" && r.Table != table || store.CheckTable(table) != nil {
			continue
		}
		apply := c.retain
		if r.DryRun {
			apply = c.condemned
		}
		n, err := apply(ctx, table, r, time.Now())
		if n > 0 {
			dropped = append(dropped, fmt.Sprintf("%s: %d rows", table, n))
		}
		if err != nil {
			return dropped, fmt.Errorf("sqlite %s: table %s: %w", s.path, table, err)
		}
	}
	return dropped, nil
}

// condemned returns how many rows of a table retain would delete. For a size
// that is reckoned from the rows' average.
func (c *conn) condemned(ctx context.Context, table string, r store.Retention, now time.Time) (rows int64, err error) {
	count := func(before time.Time) (int64, error) {
		text, err := c.texts(ctx, `SELECT CAST(count(*) AS TEXT) FROM "`+table+`" WHERE time_stamp < ?`, before.UnixMicro())
		if err != nil || len(text) == 0 {
			return 0, err
		}
		return strconv.ParseInt(text[0], 10, 64)
	}
	if r.Age > 0 {
		if rows, err = count(now.Add(-r.Age)); err != nil {
			return 0, err
		}
	}
	if r.Bytes == 0 {
		return rows, nil
	}
	used, err := c.usedBytes(ctx)
	if err != nil || used <= r.Bytes {
		return rows, err
	}
	old, err := count(now.Add(-24 * time.Hour))
	if err != nil {
		return 0, err
	}
	all, err := count(time.UnixMicro(math.MaxInt64))
	if err != nil {
		return 0, err
	}
	tooMuch := int64(float64(all) * float64(used-r.Bytes) / float64(used))
	return max(rows, min(tooMuch, old)), nil
}

// deleteRows is how many rows one transaction deletes: the writer waits for it.
const deleteRows = 5000

// retain deletes from one table what r does not keep and returns how many rows
// that were.
func (c *conn) retain(ctx context.Context, table string, r store.Retention, now time.Time) (rows int64, err error) {
	if r.Age > 0 {
		for {
			n, err := c.deleteOldest(ctx, table, now.Add(-r.Age))
			rows += n
			if err != nil {
				return rows, err
			}
			if n < deleteRows {
				break
			}
		}
	}
	for r.Bytes > 0 {
		used, err := c.usedBytes(ctx)
		if err != nil || used <= r.Bytes {
			return rows, err
		}
		n, err := c.deleteOldest(ctx, table, now.Add(-24*time.Hour))
		rows += n
		if err != nil || n == 0 {
			return rows, err
		}
	}
	return rows, nil
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
	text, err := c.texts(ctx, `SELECT CAST((p.page_count - f.freelist_count) * s.page_size AS TEXT)
		FROM pragma_page_count() AS p, pragma_freelist_count() AS f, pragma_page_size() AS s`)
	if err != nil || len(text) == 0 {
		return 0, err
	}
	return strconv.ParseInt(text[0], 10, 64)
}
