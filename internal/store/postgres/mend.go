package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/schema"
)

// mend makes what somebody has dropped of a schema that was applied, all or
// nothing, and leaves the rest as it is.
func mend(ctx context.Context, c *pgx.Conn) error {
	_, missing, err := inventory(ctx, c)
	if err != nil || len(missing) == 0 {
		return err
	}
	m, err := store.ReadMigrations(schema.Postgres())
	if err != nil {
		return err
	}
	statements, err := m.Statements()
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(`+schemaLock+`)`); err != nil {
			return err
		}
		if _, err := c.PgConn().Exec(ctx, statements).ReadAll(); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT siptrace_create_table(name, $1), siptrace_make_view(current_schema(), name) FROM trace_tables ORDER BY name`,
			store.MaxTables); err != nil {
			return err
		}
		_, left, err := inventory(ctx, c)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("still missing: %q", left)
		}
		return err
	})
}

// inventory lists the trace tables, by name, and what is not there of all
// that Apply makes.
func inventory(ctx context.Context, c *pgx.Conn) (tables, missing []string, err error) {
	if missing, err = missingParts(ctx, c); err != nil {
		return nil, nil, err
	}
	if slices.Contains(missing, "table trace_tables") {
		return nil, missing, nil
	}
	rows, err := c.Query(ctx, traceTables)
	if err != nil {
		return nil, nil, err
	}
	type traceTable struct {
		Name        string
		Table, View bool
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[traceTable])
	for _, t := range all {
		if t.Table {
			tables = append(tables, t.Name)
		} else if t.Name != store.DefaultTable { // that one is told already
			missing = append(missing, "table "+t.Name)
		}
		if !t.View {
			missing = append(missing, "view "+t.Name+"_text")
		}
	}
	return tables, missing, err
}

const traceTables = `SELECT t.name, EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = t.name AND c.relkind IN ('r', 'p')),
  EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = t.name || '_text')
FROM trace_tables t JOIN pg_namespace n ON n.nspname = current_schema() ORDER BY 1`

// missingParts lists what is not there of all that is not of one table alone,
// and the default table, the model of the others.
func missingParts(ctx context.Context, c *pgx.Conn) ([]string, error) {
	rows, err := c.Query(ctx, parts)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

const parts = `SELECT 'table ' || w.name FROM unnest(ARRAY['sip_trace', 'trace_tables']) w (name)
WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = current_schema() AND c.relname = w.name AND c.relkind IN ('r', 'p'))
UNION ALL
SELECT 'function ' || w.name FROM unnest(ARRAY['sip_text', 'siptrace_make_view', 'siptrace_add_partition', 'siptrace_create_table']) w (name)
WHERE NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = current_schema() AND p.proname = w.name)`
