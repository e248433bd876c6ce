package pgserver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
)

func start(t *testing.T) *pgserver.Server {
	t.Helper()
	s, err := pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("SIPTRACE_TEST_POSTGRES") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// answer asks the server for the value of a setting.
func answer(ctx context.Context, s *pgserver.Server, setting string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	var value string
	err = c.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&value)
	return value, err
}

func TestServer(t *testing.T) {
	s := start(t)
	check := func(t *testing.T) {
		t.Helper()
		got, err := answer(t.Context(), s, "fsync")
		if err != nil || got != "off" {
			t.Fatalf("fsync = %q, %v, want off", got, err)
		}
	}
	t.Run("answers with the settings given", check)
	t.Run("answers on the same port after a restart", func(t *testing.T) {
		before := s.URL()
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		if s.URL() != before {
			t.Errorf("URL is another one: port %s", s.Addr())
		}
		check(t)
	})
	t.Run("answers again after a crash", func(t *testing.T) {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := answer(t.Context(), s, "fsync"); err == nil {
			t.Error("a killed server answers")
		}
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		check(t)
	})
	t.Run("does not answer while paused", func(t *testing.T) {
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		if got, err := answer(t.Context(), s, "fsync"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a paused server answers %q, %v", got, err)
		}
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
		check(t)
	})
}

func TestServer_Stop_removesItsOwnDirectory(t *testing.T) {
	t.Setenv("TMPDIR", publicDir(t))
	s := start(t)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// publicDir is a directory that every user can get to.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "public")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
