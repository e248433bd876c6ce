package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
)

func TestSchema_indexedTextsAreComparedByBytes(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	schema, err := postgres.NewSchema(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.CreateTable(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	var n int
	err = c.QueryRow(t.Context(), `SELECT count(*) FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN pg_collation l ON l.oid = a.attcollation
		WHERE r.relnamespace = current_schema()::regnamespace AND r.relname IN ('sip_trace', 'other') AND a.attname IN ('callid', 'traced_user') AND l.collname = 'C'`).Scan(&n)
	if err != nil || n != 4 {
		t.Errorf("%d columns of 4 have the collation C, %v", n, err)
	}
}
