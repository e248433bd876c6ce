package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// A table is a trace table that rows can be written to.
type table struct {
	name        string
	ident       string // quoted, with its schema
	schema      string // quoted
	layout      layout
	lengths     lengths // of Kamailio's columns
	partitioned bool

	mu    sync.Mutex
	hours map[int64]bool // by hours since 1970: there is a partition, or none can be made
}

// An entry is what is known of a table name.
type entry struct {
	table  *table
	reason string // why there is none
	err    error
	absent bool      // nothing has the name
	until  time.Time // how long that is believed
}

// tables remembers what the catalogue said.
type tables struct {
	fallback string // for events that name none; never believed to be unusable

	mu     sync.Mutex
	byName map[string]entry
}

const (
	denied    = 5 * time.Second // how long a table is believed to be missing or wrong
	maxDenied = 1000            // names remembered; a stranger may make them up
)

func newTables(fallback string) *tables {
	return &tables{fallback: fallback, byName: make(map[string]entry)}
}

// known returns what is remembered of a name.
func (ts *tables) known(name string) (entry, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	e, ok := ts.byName[name]
	if ok && e.table == nil && time.Now().After(e.until) {
		delete(ts.byName, name)
		ok = false
	}
	return e, ok
}

// forget makes the next batch look at tables again.
func (ts *tables) forget(names ...string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, name := range names {
		delete(ts.byName, name)
	}
}

// load looks names up in the catalogue, making missing tables if create says
// so, and remembers what it found.
func (ts *tables) load(ctx context.Context, c *pgx.Conn, names []string, create bool) (map[string]entry, error) {
	found, err := look(ctx, c, names)
	if err != nil {
		return nil, err
	}
	if create {
		if err := makeTables(ctx, c, names, found); err != nil {
			return nil, err
		}
	}
	ts.remember(found)
	return found, nil
}

func (ts *tables) remember(found map[string]entry) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	bad := 0
	for _, e := range ts.byName {
		if e.table == nil {
			bad++
		}
	}
	if bad >= maxDenied {
		for name, e := range ts.byName {
			if e.table == nil {
				delete(ts.byName, name)
			}
		}
	}
	for name, e := range found {
		if e.table != nil || name != ts.fallback {
			ts.byName[name] = e
		}
	}
}

// makeTables makes those of names that were not found, until there are as many
// as a database can bear. The model of them all is not for a writer to make:
// who dropped it has a reason.
func makeTables(ctx context.Context, c *pgx.Conn, names []string, found map[string]entry) error {
	for _, name := range names {
		if found[name].reason != store.UnknownTable || name == store.DefaultTable {
			continue
		}
		e, err := makeTable(ctx, c, name)
		if err != nil {
			return err
		}
		found[name] = e
		if code(e.err) == configurationLimitExceeded {
			return nil
		}
	}
	return nil
}

// makeTable makes a trace table and looks at it.
func makeTable(ctx context.Context, c *pgx.Conn, name string) (entry, error) {
	if err := store.CheckNewTable(name); err != nil {
		return unusable(store.BadTableName, err), nil
	}
	switch err := createTable(ctx, c, name); code(err) {
	case "":
		if err != nil {
			return entry{}, err
		}
	case configurationLimitExceeded:
		return unusable(store.UnknownTable, err), nil
	default:
		return entry{}, err
	}
	found, err := look(ctx, c, []string{name})
	return found[name], err
}

// look reads tables' structure from the catalogue. Every name has an entry in the result.
func look(ctx context.Context, c *pgx.Conn, names []string) (map[string]entry, error) {
	rows, err := c.Query(ctx, structure, names)
	if err != nil {
		return nil, err
	}
	columns := make(map[string][]column)
	facts := make(map[string]fact)
	for rows.Next() {
		var f fact
		var col column
		if err := rows.Scan(&f.schema, &f.name, &f.kind, &f.leaf, &f.keyed, &col.name, &col.typ, &col.length, &col.notNull, &col.supplied); err != nil {
			return nil, err
		}
		facts[f.name] = f
		columns[f.name] = append(columns[f.name], col)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	found := make(map[string]entry, len(names))
	for _, name := range names {
		found[name] = judgeTable(name, facts[name], columns[name])
	}
	return found, nil
}

// A fact is what the catalogue says of a relation.
type fact struct {
	schema, name, kind string
	leaf               bool // a partition of another table
	keyed              bool // has the unique key that makes a second write harmless
}

func judgeTable(name string, f fact, columns []column) entry {
	switch {
	case f.name == "":
		e := unusable(store.UnknownTable, fmt.Errorf("table %s does not exist", name))
		e.absent = true
		return e
	case f.leaf || !strings.Contains("rp", f.kind):
		return unusable(store.UnknownTable, fmt.Errorf("%s is a view or a partition, not a trace table", name))
	}
	l, lengths, err := recognize(columns)
	if err == nil && l == own && !f.keyed {
		err = errors.New("no unique key (time_stamp, event_id, traced_user)")
	}
	if err != nil {
		return unusable(store.WrongColumns, fmt.Errorf("table %s: %w", name, err))
	}
	return entry{table: &table{
		name:        name,
		ident:       pgx.Identifier{f.schema, f.name}.Sanitize(),
		schema:      pgx.Identifier{f.schema}.Sanitize(),
		layout:      l,
		lengths:     lengths,
		partitioned: f.kind == "p",
		hours:       make(map[int64]bool),
	}}
}

func unusable(reason string, err error) entry {
	return entry{reason: reason, err: err, until: time.Now().Add(denied)}
}

const configurationLimitExceeded = "53400"

// structure asks for the columns of tables in the schema that is current.
const structure = `SELECT current_schema()::text, c.relname::text, c.relkind::text, c.relispartition,
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indnkeyatts = 3 AND 3 =
    (SELECT count(*) FROM pg_attribute k WHERE k.attrelid = c.oid AND k.attnum = ANY (i.indkey::smallint[])
                                           AND k.attname IN ('time_stamp', 'event_id', 'traced_user'))),
  a.attname::text, format_type(a.atttypid, NULL), CASE WHEN a.atttypid = 'varchar'::regtype THEN greatest(a.atttypmod - 4, 0) ELSE 0 END,
  a.attnotnull, a.atthasdef OR a.attidentity <> ''
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = current_schema() AND c.relname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum`
