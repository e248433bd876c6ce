package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "modernc.org/sqlite"             // the driver "sqlite"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/pgserver"
)

// A database is where the rows go.
type database struct {
	url         string // as db-writer takes it
	driver, dsn string // as database/sql does
	name        string // "PostgreSQL 15.18"
	pid         int    // of its server, when that is ours
}

// database makes what --store names: "postgres" or "sqlite" for a new one, or
// a URL of one that exists.
func (r *rig) database(ctx context.Context, store string) (*database, error) {
	switch {
	case store == "postgres":
		return r.postgres(ctx)
	case store == "sqlite":
		file := filepath.Join(r.dir, "siptrace.db") // db-writer makes it
		d := &database{url: "sqlite:" + file, driver: "sqlite", dsn: "file:" + file + "?mode=ro&_busy_timeout=60000"}
		memory := database{driver: "sqlite", dsn: ":memory:"}
		return d, memory.ask(ctx, &d.name, "SELECT 'SQLite ' || sqlite_version()")
	case strings.HasPrefix(store, "postgres://"), strings.HasPrefix(store, "postgresql://"):
		d := &database{url: store, driver: "pgx", dsn: store}
		return d, d.ask(ctx, &d.name, postgresVersion)
	}
	return nil, fmt.Errorf("--store %q: use postgres, sqlite or postgres://USER@HOST/DATABASE", app.Redact(store))
}

const postgresVersion = "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1)"

// postgres starts a server of our own, set as docs/operate.md advises.
func (r *rig) postgres(ctx context.Context) (*database, error) {
	settings, err := postgresSettings(r.dir)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(r.dir, "postgres")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var server *pgserver.Server
	err = onCores(r.place.Cores, func() (err error) {
		server, err = pgserver.Start(dir, settings...)
		return err
	})
	if server != nil {
		r.ends = append(r.ends, server.Stop)
	}
	if errors.Is(err, pgserver.ErrNotInstalled) {
		return nil, fmt.Errorf("%w: install it (apt-get install postgresql), or use --store sqlite", err)
	}
	if err != nil {
		return nil, err
	}
	d := &database{url: server.URL(), driver: "pgx", dsn: server.URL()}
	if err := d.ask(ctx, &d.name, postgresVersion); err != nil {
		return nil, err
	}
	d.pid, err = d.serverPID(ctx)
	return d, err
}

// postgresSettings are for a server that has the machine's disk and a quarter
// of its memory for itself.
func postgresSettings(dir string) ([]string, error) {
	memory, err := hostProc().memory()
	if err != nil {
		return nil, err
	}
	free, _, err := room(dir)
	if err != nil {
		return nil, err
	}
	const mb = 1 << 20
	return []string{
		fmt.Sprintf("shared_buffers=%dMB", min(memory/4, 8<<30)/mb),
		fmt.Sprintf("max_wal_size=%dMB", max(1<<30, min(16<<30, free/4))/mb),
		"checkpoint_timeout=15min", "wal_buffers=64MB", "default_toast_compression=lz4",
	}, nil
}

// ask asks a question with one value for an answer.
func (d *database) ask(ctx context.Context, answer any, question string) error {
	return d.with(func(db *sql.DB) error { return db.QueryRowContext(ctx, question).Scan(answer) })
}

// with connects for the time of a call: while the programs are measured,
// nobody else is connected.
func (d *database) with(call func(*sql.DB) error) error {
	db, err := sql.Open(d.driver, d.dsn)
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	defer db.Close()
	if err := call(db); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// serverPID is the parent of the process that serves a connection.
func (d *database) serverPID(ctx context.Context) (pid int, err error) {
	err = d.with(func(db *sql.DB) error {
		var backend int
		if err := db.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
			return err
		}
		all, err := hostProc().stats()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(s stat) bool { return s.pid == backend })
		if i < 0 {
			return fmt.Errorf("process %d is not on this machine", backend)
		}
		pid = all[i].parent
		return nil
	})
	return pid, err
}

// counted is what is stored of a run: all rows, and different events.
type counted struct{ rows, events uint64 }

// count counts what the agents of a run have sent.
func (d *database) count(ctx context.Context, run string) (counted, error) {
	var c counted
	err := d.with(func(db *sql.DB) error {
		const question = "SELECT count(*), count(DISTINCT event_id) FROM sip_trace WHERE node LIKE $1"
		return db.QueryRowContext(ctx, question, run+"-%").Scan(&c.rows, &c.events)
	})
	return c, err
}
