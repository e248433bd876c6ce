package store

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
)

// VersionTable is where goose keeps which migrations were applied. The name is
// siptrace's own, so that a database may be shared with others who use goose.
const VersionTable = "siptrace_schema"

// Migrations are the numbered SQL files of one kind of database.
type Migrations struct {
	files    []string // in order
	versions []int64
	fsys     fs.FS
}

// ReadMigrations lists the migrations in fsys.
func ReadMigrations(fsys fs.FS) (*Migrations, error) {
	m := &Migrations{fsys: fsys}
	var err error
	if m.files, err = fs.Glob(fsys, "*.sql"); err != nil {
		return nil, err
	}
	for _, name := range m.files {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		m.versions = append(m.versions, version)
	}
	return m, nil
}

// Newest is the version that applying them all leads to.
func (m *Migrations) Newest() int64 { return m.versions[len(m.versions)-1] }

// SQL returns the migrations one behind the other, and behind them what notes
// them as applied in the version table, which createVersions makes. Run on an
// empty database it does what goose would.
func (m *Migrations) SQL(createVersions string) (string, error) {
	text, err := m.Statements()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(text)
	fmt.Fprintf(&b, "-- What has been applied, for the next version to know.\n%s\n", createVersions)
	for _, v := range append([]int64{0}, m.versions...) {
		fmt.Fprintf(&b, "INSERT INTO %s (version_id, is_applied) VALUES (%d, true);\n", VersionTable, v)
	}
	return b.String(), nil
}

// Statements returns the migrations one behind the other. Run again they make
// what is missing.
func (m *Migrations) Statements() (string, error) {
	var b strings.Builder
	for _, name := range m.files {
		text, err := fs.ReadFile(m.fsys, name)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "-- +goose") {
				b.WriteString(line)
			}
		}
		b.WriteByte('\n')
	}
	return strings.TrimLeft(b.String(), "\n"), nil
}
