package sqlite

import (
	"context"
	"slices"
	"strings"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/schema"
)

// mend makes what somebody has dropped of a schema that was applied, all or
// nothing, and leaves the rest as it is.
func (c *conn) mend(ctx context.Context) error {
	_, missing, err := c.inventory(ctx)
	if err != nil || len(missing) == 0 {
		return err
	}
	m, err := store.ReadMigrations(schema.SQLite())
	if err != nil {
		return err
	}
	statements, err := m.Statements()
	if err != nil {
		return err
	}
	return c.atomically(ctx, func() error {
		if err := c.exec(ctx, statements); err != nil {
			return err
		}
		_, missing, err := c.inventory(ctx)
		for _, what := range missing {
			if name, ok := strings.CutPrefix(what, "table "); ok {
				if err := c.createTable(ctx, name); err != nil {
					return err
				}
			}
		}
		return err
	})
}

// inventory lists the trace tables, by name, and what is not there of all that
// Apply makes. The views of other tables are for people, and theirs to drop.
func (c *conn) inventory(ctx context.Context) (tables, missing []string, err error) {
	there, err := c.texts(ctx, `SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')`)
	if err != nil {
		return nil, nil, err
	}
	var listed []string
	if slices.Contains(there, "trace_tables") {
		if listed, err = c.texts(ctx, `SELECT name FROM trace_tables WHERE name <> ? ORDER BY name`, store.DefaultTable); err != nil {
			return nil, nil, err
		}
	} else {
		missing = append(missing, "table trace_tables")
	}
	for _, name := range append(listed, store.DefaultTable) {
		if slices.Contains(there, name) {
			tables = append(tables, name)
		} else {
			missing = append(missing, "table "+name)
		}
	}
	if !slices.Contains(there, store.DefaultTable+"_text") {
		missing = append(missing, "view "+store.DefaultTable+"_text")
	}
	slices.Sort(tables)
	return tables, missing, nil
}

// atomically runs do in a transaction that alone writes.
func (c *conn) atomically(ctx context.Context, do func() error) error {
	if err := c.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := do()
	if err == nil {
		err = c.exec(ctx, "COMMIT")
	}
	if err != nil {
		_ = c.exec(context.WithoutCancel(ctx), "ROLLBACK") // SQLite may have done it already
	}
	return err
}
