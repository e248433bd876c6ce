package open_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
)

func TestUnknownURL_saysWhatIsKnownAndNoSecret(t *testing.T) {
	for _, url := range []string{"", "trace.db", "mysql://u:s3cret@host/db", "u:s3cret@host/db", "host=x password=s3cret:1", "s3cret", "://s3cret"} {
		_, errWriter := open.Writer(t.Context(), url, store.Options{})
		_, errReader := open.Reader(url, store.Options{})
		_, errSchema := open.Schema(url)
		for _, err := range []error{errWriter, errReader, errSchema} {
			if err == nil || !strings.Contains(err.Error(), "postgres://") || !strings.Contains(err.Error(), "sqlite:") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%q: %v", url, err)
			}
		}
	}
}

func TestSQLite(t *testing.T) {
	dir := t.TempDir()
	for _, url := range []string{"sqlite:" + filepath.Join(dir, "a.db"), "sqlite://" + filepath.Join(dir, "b.db")} {
		schema, err := open.Schema(url)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
		s, err := open.Writer(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		r, err := open.Reader(url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, s := range []store.Store{s, r} {
			if err := s.Ready(t.Context()); err != nil {
				t.Errorf("%s: %v", url, err)
			}
		}
	}
}

func TestPostgres_connectsToNothingYet(t *testing.T) {
	for _, url := range []string{"postgres://user:secret@db.invalid/siptrace", "postgresql://db.invalid/"} {
		s, err := open.Writer(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if s, err = open.Reader(url, store.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := open.Schema(url); err != nil {
			t.Error(err)
		}
	}
}
