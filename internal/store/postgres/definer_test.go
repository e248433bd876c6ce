package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestSchema_writerCannotActAsOwner(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	writer := asWriter(t, address, schemaOf(t, address), "EXECUTE ON FUNCTION siptrace_add_partition", "EXECUTE ON FUNCTION siptrace_create_table")
	c, err := pgx.Connect(t.Context(), writer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	for _, sql := range []string{
		`CREATE TEMP TABLE seen (who text)`,
		`GRANT INSERT ON seen TO PUBLIC`,
		`CREATE FUNCTION pg_temp.evil() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO pg_temp.seen VALUES (current_user); RETURN 'sip_trace'; END $$`,
		`CREATE TEMP VIEW trace_tables AS SELECT pg_temp.evil() AS name`,
		`GRANT SELECT ON trace_tables TO PUBLIC`,
	} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	for _, call := range []string{`SELECT siptrace_add_partition('sip_trace', '2026-01-01', '2026-01-02')`, `SELECT siptrace_create_table('other', 200)`} {
		_, err = c.Exec(t.Context(), call)
		t.Log(err)
	}
	var who []string
	if err := c.QueryRow(t.Context(), `SELECT array_agg(who) FROM seen`).Scan(&who); err != nil || len(who) > 0 {
		t.Errorf("the writer's own function ran as %q (%v)", who, err)
	}
}
