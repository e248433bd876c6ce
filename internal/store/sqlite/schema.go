package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/schema"
)

// Schema makes and describes the tables of a database file. It is a [store.Schema].
type Schema struct{ path string }

// NewSchema touches nothing.
func NewSchema(path string) (*Schema, error) {
	path, err := absolute(path)
	if err != nil {
		return nil, err
	}
	return &Schema{path}, nil
}

// The version table as goose makes it.
const createVersions = `CREATE TABLE ` + store.VersionTable + ` (
  id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL,
  tstamp TIMESTAMP DEFAULT (datetime('now')));`

// Print is what [store.Schema] promises.
func (s *Schema) Print() (string, error) {
	m, err := store.ReadMigrations(schema.SQLite())
	if err != nil {
		return "", err
	}
	return m.SQL(createVersions)
}

// Apply is what [store.Schema] promises. It makes the file if need be.
func (s *Schema) Apply(ctx context.Context) error {
	if err := migrate(ctx, s.path); err != nil {
		return err
	}
	c, err := connect(ctx, writerDSN(s.path, synchronousAck))
	if err == nil {
		err = errors.Join(c.mend(ctx), c.close())
	}
	if err != nil {
		return fmt.Errorf("sqlite %s: apply schema: %w", s.path, err)
	}
	return nil
}

// migrate applies what was never applied.
func migrate(ctx context.Context, path string) error {
	db, err := sql.Open(driverName, writerDSN(path, synchronousAck))
	if err != nil {
		return fmt.Errorf("sqlite %s: %w", path, err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	p, err := goose.NewProvider(goose.DialectSQLite3, db, schema.SQLite(), goose.WithTableName(store.VersionTable))
	if err != nil {
		return fmt.Errorf("sqlite %s: %w", path, err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("sqlite %s: apply schema: %w", path, err)
	}
	return nil
}

// Status is what [store.Schema] promises.
func (s *Schema) Status(ctx context.Context) (store.Status, error) {
	m, err := store.ReadMigrations(schema.SQLite())
	if err != nil {
		return store.Status{}, err
	}
	status := store.Status{Newest: m.Newest()}
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return status, nil
	}
	c, err := connect(ctx, readerDSN(s.path))
	if err != nil {
		return status, fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	defer c.close()
	if status.Version, err = c.version(ctx); err != nil || status.Version == 0 {
		return status, err
	}
	status.Tables, status.Missing, err = c.inventory(ctx)
	return status, err
}

// CreateTable is what [store.Schema] promises.
func (s *Schema) CreateTable(ctx context.Context, name string) (err error) {
	c, err := connect(ctx, writerDSN(s.path, synchronousAck))
	if err != nil {
		return fmt.Errorf("sqlite %s: %w", s.path, err)
	}
	defer c.close()
	if err = c.atomically(ctx, func() error { return c.createTable(ctx, name) }); err != nil {
		return fmt.Errorf("sqlite %s: create table %s: %w", s.path, name, err)
	}
	return nil
}

// Close does nothing: no connection outlives its use.
func (s *Schema) Close() error { return nil }

// errNewTable is why a table that could be made is not.
var errNewTable = errors.New("no new table")

// createTable makes a table, its index and its view after the model of
// sip_trace, unless it is there. It is to be called within a transaction.
func (c *conn) createTable(ctx context.Context, name string) error {
	if err := store.CheckNewTable(name); err != nil {
		return fmt.Errorf("%w: %w", errNewTable, err)
	}
	tables, err := c.texts(ctx, `SELECT name FROM trace_tables`)
	if err != nil {
		return err
	}
	if found, err := c.exists(ctx, name); found || err != nil {
		return err
	}
	if taken, err := c.texts(ctx, `SELECT type FROM sqlite_schema WHERE name = ? AND type <> 'trigger'`, name); err != nil {
		return err
	} else if len(taken) > 0 {
		return fmt.Errorf("%w: %s is the name of an index or a view", errNewTable, name)
	}
	if !slices.Contains(tables, name) && len(tables) >= store.MaxTables {
		return fmt.Errorf("%w: there are %d already", errNewTable, len(tables))
	}
	if found, err := c.exists(ctx, store.DefaultTable); err != nil || !found {
		return cmp.Or(err, fmt.Errorf("table %s, the model of the others, does not exist; ctl schema apply makes it", store.DefaultTable))
	}
	// A view outlives its table, when that is dropped by hand.
	model, err := c.texts(ctx, `SELECT m.sql FROM sqlite_schema m WHERE m.name IN ('sip_trace', 'sip_trace_callid', 'sip_trace_text')
		AND NOT EXISTS (SELECT 1 FROM sqlite_schema s WHERE s.name = replace(m.name, 'sip_trace', ?))
		ORDER BY m.type = 'view', m.type = 'index'`, name)
	if err != nil {
		return err
	}
	for _, ddl := range model {
		if err := c.exec(ctx, strings.ReplaceAll(ddl, store.DefaultTable, name)); err != nil {
			return err
		}
	}
	return c.exec(ctx, `INSERT OR IGNORE INTO trace_tables (name) VALUES (?)`, name)
}

// exists reports whether there is a table of that name.
func (c *conn) exists(ctx context.Context, name string) (bool, error) {
	found, err := c.texts(ctx, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?`, name)
	return len(found) > 0, err
}

// version is that of the newest migration applied, or 0.
func (c *conn) version(ctx context.Context) (int64, error) {
	found, err := c.exists(ctx, store.VersionTable)
	if err != nil || !found {
		return 0, err
	}
	text, err := c.texts(ctx, `SELECT CAST(max(version_id) AS TEXT) FROM `+store.VersionTable+` WHERE is_applied`)
	if err != nil || len(text) == 0 {
		return 0, err
	}
	return strconv.ParseInt(text[0], 10, 64)
}
