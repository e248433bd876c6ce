package ctl

import (
	"fmt"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/store"
)

// SchemaCreateTableCmd is ctl schema create-table.
type SchemaCreateTableCmd struct {
	DatabaseFlags
	Name string `arg:"" help:"What the table is called: a small letter and up to 39 small letters, digits and underscores."`
}

// Help is the end of ctl schema create-table --help.
func (*SchemaCreateTableCmd) Help() string {
	return `The table has the columns and the key of sip_trace. An event goes there when a rule, a tap's --table or sipgotap names it.
A table that is there already is left as it is. db-writer --create-tables makes tables by itself.

Example:
  ctl schema create-table sip_trace_acme --store postgres://owner@db/siptrace`
}

// Run makes the table, unless it is there, and says where it stands.
func (c *SchemaCreateTableCmd) Run(env *Env) error {
	if err := store.CheckNewTable(c.Name); err != nil {
		return app.UsageError{Err: err}
	}
	s, err := c.schema()
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := s.Status(env)
	if err != nil {
		return err
	}
	if st.Version == 0 {
		return fmt.Errorf("the database has no schema yet: make it with %s schema apply", self())
	}
	if err := s.CreateTable(env, c.Name); err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout, c.Name)
	return nil
}
