// Package open opens the database that a URL names: the place where the kinds
// of database siptrace knows are listed.
//
//	postgres://user@host/database     PostgreSQL, with any parameter of libpq's
//	sqlite:trace.db                   a SQLite file
package open

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/sqlite"
)

// Writer opens a database for writing and reading.
func Writer(ctx context.Context, url string, o store.Options) (store.Store, error) {
	switch scheme, rest := split(url); scheme {
	case "postgres":
		return postgres.Open(rest, o)
	case "sqlite":
		return sqlite.Open(ctx, rest, o)
	default:
		return nil, unknown(scheme)
	}
}

// Reader opens a database that exists for reading: its Write refuses.
func Reader(url string, o store.Options) (store.Store, error) {
	switch scheme, rest := split(url); scheme {
	case "postgres":
		return postgres.OpenReader(rest, o)
	case "sqlite":
		return sqlite.OpenReader(rest, o)
	default:
		return nil, unknown(scheme)
	}
}

// Schema returns the schema of a database. It connects to nothing.
func Schema(url string) (store.Schema, error) {
	switch scheme, rest := split(url); scheme {
	case "postgres":
		return postgres.NewSchema(rest)
	case "sqlite":
		return sqlite.NewSchema(rest)
	default:
		return nil, unknown(scheme)
	}
}

// split parts a URL into its scheme and what follows: all of the URL for
// PostgreSQL, the file's name for SQLite.
func split(url string) (scheme, rest string) {
	scheme, rest, ok := strings.Cut(url, ":")
	if !ok {
		return "", ""
	}
	switch scheme {
	case "postgres", "postgresql":
		return "postgres", url
	case "sqlite":
		if path, ok := strings.CutPrefix(rest, "//"); ok && strings.HasPrefix(path, "/") {
			return scheme, path // sqlite:///var/lib/trace.db
		}
	}
	return scheme, rest
}

// unknown names the scheme alone: the rest of a URL may hold a password.
func unknown(scheme string) error {
	if strings.IndexFunc(scheme, func(r rune) bool { return r < 'a' || r > 'z' }) >= 0 {
		scheme = "" // something else than a URL
	}
	if scheme == "" {
		return errors.New("store: this is no URL; use postgres://USER@HOST/DATABASE, or sqlite:FILE for a file")
	}
	return fmt.Errorf("store %q: no such kind of database; use postgres://USER@HOST/DATABASE or sqlite:FILE", scheme)
}
