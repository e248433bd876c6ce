package postgres_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

const secret = "s3cr3t-p4ss"

// change returns address with a part of it changed.
func change(t *testing.T, address string, how func(u *url.URL)) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	how(u)
	return u.String()
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestErrors_sayWhatIsWrongInOneLine(t *testing.T) {
	address := newDatabase(t)
	host := server(t).Addr()
	gone := closedPort(t)
	for _, tt := range []struct {
		name, class, want string
		change            func(u *url.URL)
	}{
		{"wrong password", store.ClassPermission,
			`postgres ` + host + `/postgres: password refused for user "postgres"; check --store`,
			func(u *url.URL) { u.User = url.UserPassword("postgres", secret) }},
		{"no such user", store.ClassPermission,
			`postgres ` + host + `/postgres: password refused for user "nobody"; check --store`,
			func(u *url.URL) { u.User = url.UserPassword("nobody", secret) }},
		{"no such database", store.ClassPermission,
			`postgres ` + host + `/missing: database "missing" does not exist; create it, or check --store`,
			func(u *url.URL) { u.Path = "/missing" }},
		{"nobody there", store.ClassConnection,
			`postgres ` + gone + `/postgres: connection refused; is PostgreSQL running there?`,
			func(u *url.URL) { u.Host = gone }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, change(t, address, tt.change), store.Options{})
			for name, err := range map[string]error{
				"Write":    s.Write(t.Context(), []trace.Event{at(today())}),
				"Ready":    s.Ready(t.Context()),
				"Maintain": s.Maintain(t.Context()),
			} {
				var e *postgres.Error
				if !errors.As(err, &e) || e.Class != tt.class || err.Error() != tt.want {
					t.Errorf("%s: %v, want %s", name, err, tt.want)
				}
				if errors.Is(err, trace.ErrPermanent) {
					t.Errorf("%s: %v is permanent", name, err)
				}
			}
		})
	}
}

func TestOpen_neverTellsThePassword(t *testing.T) {
	for _, address := range []string{
		"postgres://u:" + secret + "@host:port/db",
		"postgres://u:" + secret + "%zz@host/db",
		"postgres://u:" + secret + "/x@host/db",
		"postgres://u:" + secret + "@host/db?sslmode=perhaps",
		"postgres://host/db?sslmode=perhaps&password=" + secret,
		"postgres://u:" + secret + "@host/db?pool_max_conns=x",
		"postgres://u:" + secret + "@[host/db",
		"host=x password=" + secret + " sslmode=perhaps",
		"host=x password='" + secret + " sslmode=perhaps",
	} {
		for name, open := range map[string]func() error{
			"Open":       func() error { _, err := postgres.Open(address, store.Options{}); return err },
			"OpenReader": func() error { _, err := postgres.OpenReader(address, store.Options{}); return err },
			"NewSchema":  func() error { _, err := postgres.NewSchema(address); return err },
		} {
			err := open()
			if err == nil {
				t.Errorf("%s took %q", name, address)
				continue
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(e.Error(), secret[:4]) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

// ownServer starts a server that a test may do anything to.
func ownServer(t *testing.T) *pgserver.Server {
	t.Helper()
	s, err := pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
	skipWithout(t, err)
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// writeUntilSafe writes events as their owner would: again and again until
// they are safe. What fails must be temporary.
func writeUntilSafe(t *testing.T, s trace.Sink, events []trace.Event) (failures int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Write(t.Context(), events)
		if err == nil {
			return failures
		}
		if errors.Is(err, trace.ErrPermanent) {
			t.Fatal(err)
		}
		if failures++; failures > 1000 {
			t.Fatal(err)
		}
		<-tick.C
	}
}

func TestWrite_outlivesTheServer(t *testing.T) {
	server := ownServer(t)
	s := openStore(t, server.URL(), store.Options{})
	traffic := storetest.NewTraffic(5, time.Now().Add(-time.Hour))
	var total int
	next := func() []trace.Event { total += 300; return traffic.Events(300) }
	check := func(t *testing.T) {
		t.Helper()
		if got := count(t, s, trace.Query{}); got != total {
			t.Errorf("%d events, want %d", got, total)
		}
	}
	writeUntilSafe(t, s, next())
	t.Run("a restart", func(t *testing.T) {
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
		writeUntilSafe(t, s, next())
		check(t)
	})
	t.Run("a crash, and says so while it is away", func(t *testing.T) {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		events := next()
		for range 3 {
			var e *postgres.Error
			if err := s.Write(t.Context(), events); !errors.As(err, &e) || e.Class != store.ClassConnection {
				t.Errorf("Write = %v, want the connection refused", err)
			}
		}
		if err := s.Ready(t.Context()); err == nil {
			t.Error("ready without a server")
		}
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
		writeUntilSafe(t, s, events)
		check(t)
	})
	t.Run("crashes in the middle of batches", func(t *testing.T) {
		for range 3 {
			done := make(chan struct{})
			batches := [][]trace.Event{next(), next(), next(), next()}
			go func() {
				defer close(done)
				for _, events := range batches {
					writeUntilSafe(t, s, events)
				}
			}()
			if err := server.Kill(); err != nil {
				t.Error(err)
			}
			if err := server.Restart(); err != nil {
				t.Error(err)
			}
			<-done
		}
		check(t)
	})
	t.Run("a server that does not answer, and gives the batch back in time", func(t *testing.T) {
		impatient := openStore(t, server.URL(), store.Options{Timeout: 300 * time.Millisecond})
		writeUntilSafe(t, impatient, next())
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		events := next()
		var e *postgres.Error
		if err := impatient.Write(t.Context(), events); !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write = %v, want no answer in time", err)
		}
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		writeUntilSafe(t, impatient, events)
		check(t)
	})
}

func TestOpen_needsNoServer(t *testing.T) {
	server := ownServer(t)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, server.URL(), store.Options{})
	if err := s.Write(t.Context(), []trace.Event{at(today())}); err == nil {
		t.Error("written without a server")
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	writeUntilSafe(t, s, []trace.Event{at(today())})
	if got := count(t, s, trace.Query{}); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}
