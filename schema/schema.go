// Package schema holds the SQL that makes siptrace's tables: for each kind of
// database a directory of numbered migrations, which goose applies in order. A
// migration never changes after a release; a change is a new one.
//
// A migration may be run again at any time: it makes what is missing of its
// work and leaves the rest as it is. So the schema is mended when somebody has
// dropped a part of it.
package schema

import (
	"embed"
	"io/fs"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Postgres returns the migrations for PostgreSQL.
func Postgres() fs.FS { return sub("postgres") }

// SQLite returns the migrations for SQLite.
func SQLite() fs.FS { return sub("sqlite") }

func sub(dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // only for a malformed name
	}
	return f
}
