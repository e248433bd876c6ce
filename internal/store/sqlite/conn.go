package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// driverName is what the driver registers itself as with database/sql.
const driverName = "sqlite"

// A conn is a connection below database/sql, whose costs for each row are
// those of the driver alone. It is for one goroutine.
type conn struct {
	driver interface {
		driver.Conn
		driver.ExecerContext
		driver.QueryerContext
		driver.ConnPrepareContext
	}
}

func connect(ctx context.Context, dsn string) (*conn, error) {
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	opened, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := new(conn)
	var ok bool
	if c.driver, ok = opened.(interface {
		driver.Conn
		driver.ExecerContext
		driver.QueryerContext
		driver.ConnPrepareContext
	}); !ok {
		return nil, errors.Join(errors.New("driver without context"), opened.Close())
	}
	return c, nil
}

// exec runs statements that return no rows.
func (c *conn) exec(ctx context.Context, query string, args ...driver.Value) error {
	_, err := c.driver.ExecContext(ctx, query, named(args))
	return err
}

// texts runs a query and returns its first column.
func (c *conn) texts(ctx context.Context, query string, args ...driver.Value) ([]string, error) {
	rows, err := c.driver.QueryContext(ctx, query, named(args))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	dest := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(dest); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		text, _ := dest[0].(string)
		list = append(list, text)
	}
}

// prepare makes a statement to be run many times.
func (c *conn) prepare(ctx context.Context, query string) (statement, error) {
	s, err := c.driver.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if s, ok := s.(statement); ok {
		return s, nil
	}
	return nil, errors.Join(errors.New("driver without context"), s.Close())
}

type statement interface {
	driver.Stmt
	driver.StmtExecContext
}

func (c *conn) close() error { return c.driver.Close() }

func named(args []driver.Value) []driver.NamedValue {
	list := make([]driver.NamedValue, len(args))
	for i, v := range args {
		list[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return list
}

// code is SQLite's primary result code of err, or 0.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// refusesRow reports whether err is about the row and not about the database.
func refusesRow(err error) bool {
	switch code(err) {
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG:
		return true
	}
	return false
}

// class is the metric label of an error that failed a batch.
func class(err error) string {
	var missing *tableError
	if errors.As(err, &missing) {
		return store.ClassSchema
	}
	switch code(err) {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_INTERRUPT:
		return store.ClassConflict
	case lib.SQLITE_FULL, lib.SQLITE_NOMEM:
		return store.ClassResources
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_AUTH, lib.SQLITE_CANTOPEN:
		return store.ClassPermission
	case lib.SQLITE_ERROR, lib.SQLITE_SCHEMA:
		return store.ClassSchema
	}
	return store.ClassOther
}
