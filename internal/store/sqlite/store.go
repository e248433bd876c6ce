package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Store is a SQLite database of trace rows. It is a [store.Store].
type Store struct {
	path    string
	table   string
	readers *sql.DB
	metrics *store.Metrics

	lock   *writerLock
	writer chan *writer // of size one: who takes the writer writes; nil when open for reading
}

// readers at once: a person or two with ctl, and the health check.
const maxReaders = 4

// Open opens a database for writing and reading, and makes it if need be. No
// other process can open it for writing until Close.
func Open(ctx context.Context, path string, o store.Options) (_ *Store, err error) {
	s, err := newStore(path, o)
	if err != nil {
		return nil, err
	}
	if s.lock, err = acquire(s.path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if !o.NoSchema {
		if err := migrate(ctx, s.path); err != nil {
			return nil, err
		}
	}
	synchronous := synchronousAck
	if o.Relaxed {
		synchronous = "NORMAL"
	}
	w, err := newWriter(ctx, writerDSN(s.path, synchronous), s.table, o.CreateTables)
	if err != nil {
		return nil, s.wrap(err)
	}
	s.writer = make(chan *writer, 1)
	s.put(w)
	s.readers, err = openReaders(s.path)
	return s, err
}

// OpenReader opens a database that exists for reading only. Write refuses.
func OpenReader(path string, o store.Options) (*Store, error) {
	s, err := newStore(path, o)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sqlite %s: no such file; has db-writer been started with this --store?", s.path)
	}
	s.readers, err = openReaders(s.path)
	return s, err
}

func newStore(path string, o store.Options) (*Store, error) {
	path, err := absolute(path)
	if err != nil {
		return nil, err
	}
	if o, err = o.WithDefaults(); err != nil {
		return nil, err
	}
	return &Store{path: path, table: o.Table, metrics: store.NewMetrics(o.Registerer)}, nil
}

func absolute(path string) (string, error) {
	if path == "" || strings.HasPrefix(path, ":") {
		return "", fmt.Errorf("sqlite %q: the database must be a file", path)
	}
	return filepath.Abs(path)
}

func openReaders(path string) (*sql.DB, error) {
	db, err := sql.Open(driverName, readerDSN(path))
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", path, err)
	}
	db.SetMaxOpenConns(maxReaders)
	return db, nil
}

// Find is what [store.Store] promises.
func (s *Store) Find(ctx context.Context, q trace.Query) iter.Seq2[trace.Event, error] {
	return store.Fetch(s.page).Find(ctx, q)
}

// Rows is what [store.Store] promises.
func (s *Store) Rows(ctx context.Context, q trace.Query) iter.Seq2[store.Row, error] {
	return store.Fetch(s.page).Rows(ctx, q)
}

// Ready is what [store.Store] promises.
func (s *Store) Ready(ctx context.Context) error {
	var one int
	err := s.readers.QueryRowContext(ctx, `SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?`, s.table).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return s.wrap(&tableError{s.table, absent(s.table)})
	}
	if err == nil {
		_, err = s.readers.ExecContext(ctx, `SELECT `+rowColumns+` FROM "`+s.table+`" LIMIT 0`)
	}
	if err != nil {
		return fmt.Errorf("sqlite %s: table %s: %w", s.path, s.table, err)
	}
	return nil
}

// Maintain folds the log back into the file as far as readers allow.
func (s *Store) Maintain(ctx context.Context) error {
	w, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer s.put(w)
	return s.wrap(w.exec(ctx, `PRAGMA wal_checkpoint(PASSIVE); PRAGMA optimize`))
}

// Close waits for a Write in progress and closes the database.
func (s *Store) Close() error {
	var errs []error
	if s.writer != nil {
		w, open := <-s.writer
		if !open {
			return nil
		}
		close(s.writer)
		errs = append(errs, w.close())
	}
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
	}
	return s.wrap(errors.Join(errs...))
}

// take waits for the writer.
func (s *Store) take(ctx context.Context) (*writer, error) {
	if s.writer == nil {
		return nil, fmt.Errorf("sqlite %s: open for reading: %w", s.path, trace.ErrPermanent)
	}
	select {
	case w, open := <-s.writer:
		if !open {
			return nil, fmt.Errorf("sqlite %s: closed", s.path)
		}
		return w, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Store) put(w *writer) { s.writer <- w }

func (s *Store) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sqlite %s: %w", s.path, err)
}
