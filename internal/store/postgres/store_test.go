package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
)

func TestStore(t *testing.T) { storetest.Run(t, open) }

// A shared server is started by the first test that needs it, and stopped
// when all have run.
var shared struct {
	once   sync.Once
	server *pgserver.Server
	err    error
	number atomic.Int32 // of databases made
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// server returns the shared server, or skips the test where there is none.
func server(t testing.TB) *pgserver.Server {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory) })
	skipWithout(t, shared.err)
	return shared.server
}

func skipWithout(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("SIPTRACE_TEST_POSTGRES") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// newDatabase makes a schema of its own in the server's database, and returns
// the URL that leads to it.
func newDatabase(t testing.TB) string {
	t.Helper()
	s := server(t)
	name := fmt.Sprintf("test_%d", shared.number.Add(1))
	execute(t, s.URL(), "CREATE SCHEMA "+name)
	return inSchema(t, s.URL(), name)
}

func inSchema(t testing.TB, address, schema string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

func open(t *testing.T, o store.Options) storetest.Database {
	t.Helper()
	address := newDatabase(t)
	schema, err := postgres.NewSchema(address)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, address, o)
	if err := schema.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec := func(t *testing.T, query string) { execute(t, address, query) }
	return storetest.Database{
		Store:  s,
		Schema: schema,
		Exec:   exec,
		Reopen: func(t *testing.T) store.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return openStore(t, address, o)
		},
		Refuse: func(t *testing.T, table, callID string) {
			exec(t, fmt.Sprintf(`ALTER TABLE %s ADD CONSTRAINT refuse CHECK (callid <> '%s')`, table, callID))
		},
	}
}

func openStore(t testing.TB, address string, o store.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(address, o)
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

// execute runs SQL as another client would.
func execute(t testing.TB, address, query string) {
	t.Helper()
	ctx := context.Background() // also after the test's has ended
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
