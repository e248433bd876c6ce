package ctl

import (
	"fmt"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// RejectPurgeCmd is ctl reject purge.
type RejectPurgeCmd struct {
	RejectFlags
	Yes bool `help:"Do it: without this flag it is only said what would be removed." env:"-"`
}

// Help is the end of ctl reject purge --help.
func (*RejectPurgeCmd) Help() string {
	return `Examples:
  ctl reject purge --reason "time out of range"          says how many that are
  ctl reject purge --reason "time out of range" --yes`
}

// Run removes what is there now; what comes meanwhile stays.
func (c *RejectPurgeCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	var seqs []uint64
	_, err = c.each(env, conn, func(r *bus.StoredReject) error {
		seqs = append(seqs, r.Seq)
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(seqs) == 0:
		fmt.Fprintln(env.Stderr, "no such rejects")
		return nil
	case !c.Yes:
		fmt.Fprintf(env.Stderr, "%s would be removed for good; do it with --yes\n", counted(len(seqs), "reject"))
		return leave(app.ExitFailed)
	}
	if err := bus.NewRejects(conn).Delete(env, seqs...); err != nil {
		return err
	}
	fmt.Fprintf(env.Stderr, "%s removed\n", counted(len(seqs), "reject"))
	return nil
}
