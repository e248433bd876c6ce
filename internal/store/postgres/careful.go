package postgres

import (
	"context"
	"fmt"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// putCarefully puts the rows of one table in, all but those that are there
// already and those that the database refuses. The rows go through a temporary
// table, since COPY itself cannot pass over a duplicate, and in the order of
// the key, so that two writers with the same rows do not wait for each other.
func (w *writing) putCarefully(ctx context.Context, i int, t *tuples) error {
	stage := fmt.Sprintf("siptrace_stage_%d", i)
	p := patient{writing: w, tuples: t, target: t.table.ident}
	if t.table.layout == own { // Kamailio's has no key
		if _, err := w.exec(ctx, "CREATE TEMP TABLE "+stage+" (LIKE "+t.table.ident+" INCLUDING CONSTRAINTS) ON COMMIT DROP"); err != nil {
			return err
		}
		p.target = "pg_temp." + stage
		p.clear = "TRUNCATE " + p.target
		p.move = "INSERT INTO " + t.table.ident + " (" + t.table.layout.names() + ") SELECT " + t.table.layout.names() + " FROM " + p.target +
			" ORDER BY time_stamp, event_id, traced_user ON CONFLICT DO NOTHING"
	}
	return p.put(ctx, 0, len(t.at))
}

// A patient finds out which rows can be put in.
type patient struct {
	*writing
	*tuples
	target string // of the COPY
	clear  string // empties target; empty where that is the table itself
	move   string // takes the rows from target to the table
}

// put puts rows lo up to hi in. When they fail together they go in parts: up
// to the row that the error names and from it on, or halves where it names
// none. A row that fails alone is refused. Each row is sent a few times at
// most if errors name theirs, and about log₂ of the batch times if not.
func (p *patient) put(ctx context.Context, lo, hi int) error {
	for lo < hi {
		err := p.try(ctx, lo, hi)
		if err == nil || !p.aboutRow(err) {
			return err
		}
		if hi-lo == 1 {
			p.writing.batch.rejections.Add(int(p.event[lo]), store.Refused, err)
			return nil
		}
		split := lo + (hi-lo)/2
		if n := line(err); n > 0 && n <= hi-lo {
			split = lo + n - 1
			if split == lo {
				split = lo + 1
			}
		}
		if err := p.put(ctx, lo, split); err != nil {
			return err
		}
		lo = split
	}
	return nil
}

// aboutRow reports whether err is a row's fault.
func (p *patient) aboutRow(err error) bool {
	v := judge(err)
	return v == careful || v == noPartition && p.last
}

// try puts rows lo up to hi in, or leaves all as it was.
func (p *patient) try(ctx context.Context, lo, hi int) error {
	if _, err := p.exec(ctx, "SAVEPOINT part"); err != nil {
		return err
	}
	added, err := p.send(ctx, lo, hi)
	if err != nil {
		if p.aboutRow(err) {
			if _, failed := p.exec(ctx, "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part"); failed != nil {
				return failed
			}
		}
		return err
	}
	if _, err := p.exec(ctx, "RELEASE SAVEPOINT part"); err != nil {
		return err
	}
	p.writing.batch.counts.rows += added
	p.writing.batch.counts.duplicates += hi - lo - added
	return nil
}

// send puts rows lo up to hi in and returns how many were not there yet.
func (p *patient) send(ctx context.Context, lo, hi int) (added int, err error) {
	if p.clear != "" {
		if _, err := p.exec(ctx, p.clear); err != nil {
			return 0, err
		}
	}
	tag, err := p.conn.PgConn().CopyFrom(ctx, p.reader(lo, hi), p.table.copyIn(p.target))
	if err != nil || p.move == "" {
		return int(tag.RowsAffected()), err
	}
	tag, err = p.exec(ctx, p.move)
	return int(tag.RowsAffected()), err
}
