package postgres

import (
	"context"
	"fmt"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// A patient puts the rows of one table in, all but those that are there
// already and those that the database refuses. The rows go through a temporary
// table, since COPY itself cannot pass over a duplicate, and in the order of
// the key, so that two writers with the same rows do not wait for each other.
type patient struct {
	*writing
	*tuples
	target string // of the COPY
	move   string // takes the rows from target to the table; empty where that is target
}

// patient makes ready for the rows of table i of the batch.
func (w *writing) patient(ctx context.Context, i int) (*patient, error) {
	t := w.batch.tuples[i]
	if t.table.layout == kamailio { // it has no key, so there is nothing to pass over
		return &patient{writing: w, tuples: t, target: t.table.ident}, nil
	}
	stage := fmt.Sprintf("siptrace_stage_%d", i)
	_, err := w.exec(ctx, "CREATE TEMP TABLE "+stage+" (LIKE "+t.table.ident+" INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY) ON COMMIT DROP")
	columns, stage := t.table.layout.names(), "pg_temp."+stage
	return &patient{
		writing: w,
		tuples:  t,
		target:  stage,
		move: "INSERT INTO " + t.table.ident + " (" + columns + ") SELECT " + columns + " FROM " + stage +
			" ORDER BY time_stamp, event_id, traced_user ON CONFLICT DO NOTHING; TRUNCATE " + stage,
	}, err
}

// put puts all rows in. A part that fails is tried again up to the row that
// the error names, or by halves where it names none; a row that fails alone is
// refused. The parts grow again with each that goes in. So no row is sent more
// than a few times, however many are refused.
func (p *patient) put(ctx context.Context) error {
	size := len(p.at)
	for lo := 0; lo < len(p.at); {
		hi := min(lo+size, len(p.at))
		err := p.try(ctx, lo, hi)
		switch {
		case err == nil:
			lo, size = hi, min(size*4, len(p.at))
		case !aboutRow(err):
			return err
		case hi-lo == 1 && judge(err) == noPartition && !p.table.barred(p.hour(lo)):
			return err // dropped since it was made
		case hi-lo == 1:
			p.writing.batch.rejections.Add(int(p.event[lo]), store.Refused, err)
			lo = hi
		default:
			size = (hi - lo) / 2
			if n := line(err); n > 0 && n <= hi-lo {
				size = max(n-1, 1)
			}
		}
	}
	return nil
}

// hour is that of a row.
func (p *patient) hour(row int) int64 { return hourOf(p.events[p.tuples.event[row]].Time) }

// aboutRow reports whether err is a row's fault.
func aboutRow(err error) bool {
	v := judge(err)
	return v == careful || v == noPartition
}

// try puts rows lo up to hi in, or leaves all as it was.
func (p *patient) try(ctx context.Context, lo, hi int) error {
	if _, err := p.exec(ctx, "SAVEPOINT part"); err != nil {
		return err
	}
	added, err := p.copy(ctx, p.tuples, lo, hi, p.target)
	if err == nil && p.move != "" {
		added, err = p.exec(ctx, p.move)
	}
	if aboutRow(err) {
		_, failed := p.exec(ctx, "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
		if failed != nil {
			return failed
		}
	}
	if err != nil {
		return err
	}
	p.writing.batch.counts.rows += added
	p.writing.batch.counts.duplicates += hi - lo - added
	_, err = p.exec(ctx, "RELEASE SAVEPOINT part")
	return err
}
