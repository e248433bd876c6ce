package ctl

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// UpCmd is ctl up.
type UpCmd struct {
	app.UpFlags
}

// Help is the end of ctl up --help.
func (*UpCmd) Help() string {
	return `Example:
  ctl up --dir /var/lib/siptrace --in hep+udp://:9060 --in "hep+tls://:9061?cert=tap.crt&key=tap.key"`
}

// Run runs until a signal.
func (c *UpCmd) Run(env *Env, kctx *kong.Context) error {
	if err := c.Validate(); err != nil {
		return app.UsageError{Err: err}
	}
	if c.PrintConfig {
		return app.PrintConfig(env.Stdout, kctx)
	}
	log, err := telemetry.NewLogger(env.Stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		return app.UsageError{Err: err}
	}
	if c.Check {
		fmt.Fprintln(env.Stdout, "ctl up: configuration is good")
		return nil
	}
	if code := app.Up(env, c.UpFlags, self(), env.Stdout, log); code != app.ExitDone {
		return leave(code)
	}
	return nil
}
