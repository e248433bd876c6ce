package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
)

// SchemaCmd is ctl schema.
type SchemaCmd struct {
	Print  SchemaPrintCmd  `cmd:"" help:"Print the SQL that makes the tables."`
	Apply  SchemaApplyCmd  `cmd:"" help:"Bring the database to the newest version, and make what was dropped of it."`
	Status SchemaStatusCmd `cmd:"" help:"Say which version the database has, and what is missing of it."`

	CreateTable SchemaCreateTableCmd `cmd:"" help:"Make a trace table of another name, with its view for people."`
	Retain      SchemaRetainCmd      `cmd:"" help:"Drop what is too old or too much."`
}

// DatabaseFlags say which database to work on.
type DatabaseFlags struct {
	Store string `help:"Database: postgres://user@host/db or sqlite:FILE. Default: that of ctl up." default:"${store}" placeholder:"URL"`
}

func (f *DatabaseFlags) schema() (store.Schema, error) {
	if err := open.Check(f.Store); err != nil {
		return nil, app.UsageError{Err: err}
	}
	return open.Schema(f.Store)
}

// SchemaPrintCmd is ctl schema print.
type SchemaPrintCmd struct{ DatabaseFlags }

// Run prints the SQL; a review, or psql, may follow.
func (c *SchemaPrintCmd) Run(env *Env) error {
	s, err := c.schema()
	if err != nil {
		return err
	}
	defer s.Close()
	text, err := s.Print()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(env.Stdout, text)
	return err
}

// SchemaApplyCmd is ctl schema apply.
type SchemaApplyCmd struct{ DatabaseFlags }

// Run applies what is missing and says what there is then.
func (c *SchemaApplyCmd) Run(env *Env) error {
	s, err := c.schema()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Apply(env); err != nil {
		return err
	}
	return sayStatus(env, s)
}

// SchemaStatusCmd is ctl schema status.
type SchemaStatusCmd struct{ DatabaseFlags }

// Run says which version the database has.
func (c *SchemaStatusCmd) Run(env *Env) error {
	s, err := c.schema()
	if err != nil {
		return err
	}
	defer s.Close()
	return sayStatus(env, s)
}

func sayStatus(env *Env, s store.Schema) error {
	st, err := s.Status(env)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "version %d", st.Version)
	if st.Version == st.Newest {
		fmt.Fprintln(env.Stdout, ", the newest")
	} else {
		fmt.Fprintf(env.Stdout, " of %d; apply the rest with: %s schema apply\n", st.Newest, self())
	}
	if len(st.Missing) > 0 {
		fmt.Fprintf(env.Stdout, "missing %s; make it anew, empty, with: %s schema apply\n", strings.Join(st.Missing, ", "), self())
	}
	if len(st.Tables) > 0 {
		fmt.Fprintln(env.Stdout, "tables  "+strings.Join(st.Tables, " "))
	}
	return nil
}

// SchemaRetainCmd is ctl schema retain.
type SchemaRetainCmd struct {
	DatabaseFlags
	Keep    app.Duration `help:"Keep what was captured within this time: 30d." placeholder:"DURATION"`
	MaxSize app.Size     `help:"Keep so much, the newest; the last 24 hours stay at any rate: 500GB." default:"0" placeholder:"SIZE"`
	Table   string       `help:"Only this table. Default: every trace table."`
	DryRun  bool         `help:"Say what would be dropped, and drop nothing."`
}

// Help is the end of ctl schema retain --help.
func (*SchemaRetainCmd) Help() string {
	return `PostgreSQL drops whole partitions, beside running writers. db-writer does the same by itself with --keep and --max-size.

Examples:
  ctl schema retain --keep 30d --dry-run
  ctl schema retain --keep 90d --max-size 500GB --store postgres://owner@db/siptrace`
}

// Run drops what is not to be kept and says what that was.
func (c *SchemaRetainCmd) Run(env *Env) error {
	r := store.Retention{Table: c.Table, Age: time.Duration(c.Keep), Bytes: int64(c.MaxSize), DryRun: c.DryRun}
	if err := r.Check(); err != nil {
		return app.Usagef("%w: --keep 30d, --max-size 500GB", err)
	}
	s, err := c.schema()
	if err != nil {
		return err
	}
	defer s.Close()
	if c.Table != "" {
		st, err := s.Status(env)
		if err != nil {
			return err
		}
		if !slices.Contains(st.Tables, c.Table) {
			return fmt.Errorf("%s is no trace table of this database; there are %s", c.Table, strings.Join(st.Tables, " "))
		}
	}
	dropped, err := s.Retain(env, r)
	word := "dropped"
	if c.DryRun {
		word = "would drop"
	}
	for _, d := range dropped {
		fmt.Fprintln(env.Stdout, word, d)
	}
	if err == nil && len(dropped) == 0 {
		fmt.Fprintln(env.Stderr, "nothing to drop")
	}
	return err
}
