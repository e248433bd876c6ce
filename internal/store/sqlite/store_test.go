package sqlite_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/sqlite"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) { storetest.Run(t, open) }

func open(t *testing.T, o store.Options) storetest.Database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.db")
	schema, err := sqlite.NewSchema(path)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, path, o)
	exec := func(t *testing.T, query string) { execute(t, path, query) }
	return storetest.Database{
		Store:  s,
		Schema: schema,
		Exec:   exec,
		Reopen: func(t *testing.T) store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return openStore(t, path, o)
		},
		Refuse: func(t *testing.T, table, callID string) {
			exec(t, fmt.Sprintf(`CREATE TRIGGER refuse_%[1]s BEFORE INSERT ON %[1]s WHEN new.callid = '%[2]s'
				BEGIN SELECT raise(ABORT, 'not this one'); END`, table, callID))
		},
	}
}

func openStore(t *testing.T, path string, o store.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// execute runs SQL on the file as another program would.
func execute(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
