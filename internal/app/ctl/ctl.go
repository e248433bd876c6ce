// Package ctl is the operator's command line: one file for each command.
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/app"
)

// CLI is the grammar of ctl.
type CLI struct {
	Up     UpCmd     `cmd:"" help:"Run everything in one process: NATS, a tap, and a db-writer on SQLite."`
	Demo   DemoCmd   `cmd:"" help:"Send a few calls to a tap by HEP."`
	Trace  TraceCmd  `cmd:"" help:"Switch tracing on or off on every tap, or check which it is."`
	Rule   RuleCmd   `cmd:"" help:"Say which calls are traced, where they go, and for how long."`
	Status StatusCmd `cmd:"" help:"Show taps and workers, what they do, what was lost, and how far consumers lag."`
	Tail   TailCmd   `cmd:"" help:"Watch messages as they come."`
	Search SearchCmd `cmd:"" help:"List stored messages."`
	Flow   FlowCmd   `cmd:"" help:"Draw one call as a ladder."`
	Replay ReplayCmd `cmd:"" help:"Write the stream, or a stretch of it, to a database, a collector or a file once more."`
	Export ExportCmd `cmd:"" help:"Write stored messages to a file, a collector or another database."`
	Import ImportCmd `cmd:"" help:"Publish what is in capture files and HEP files, with the times it has there."`
	Reject RejectCmd `cmd:"" help:"List, show, retry or remove what workers gave up on."`
	Stream StreamCmd `cmd:"" help:"Show the streams on the bus, and change their limits and replicas."`
	Schema SchemaCmd `cmd:"" help:"Print, apply or check the database's schema."`
	HEP    HEPCmd    `cmd:"" name:"hep" help:"Look into HEP packets."`
	Health HealthCmd `cmd:"" help:"Ask a service whether it is well: the probe of a container."`
	Bench  BenchCmd  `cmd:"" help:"Measure the pipeline on this machine."`

	Config  kong.ConfigFlag  `help:"YAML file with the same names as the flags." placeholder:"FILE"`
	Version kong.VersionFlag `help:"Print the version and end." env:"-"`
}

const description = `Switch, watch and search siptrace.

Examples:
  ctl up                                     everything in one process, nothing to install
  ctl demo                                   send a few calls to it
  ctl search --since 1h --user alice
  ctl flow 8f3c@pbx --raw
  ctl trace off --reason "maintenance" --for 30m
  ctl rule add --caller alice --for 15m --table sip_trace_alice`

// Env is what a command works with.
type Env struct {
	context.Context
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// log is the logger of commands that speak with servers: warnings only.
func (e *Env) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// sayDenied says at once, and once, what NATS does not let this user do: the
// server answers nothing, so that all that comes of it later is a time-out.
func (e *Env) sayDenied() func(error) {
	var last string
	return func(err error) {
		if text := err.Error(); text != last {
			last = text
			fmt.Fprintf(e.Stderr, "ctl: %s; this user may not: docs/security.md says which one may\n", text)
		}
	}
}

// Main runs ctl and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, args, stdin, stdout, stderr)
}

// Run is [Main] until ctx is done.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var cli CLI
	if len(args) == 0 {
		args = []string{"--help"}
	}
	vars := kong.Vars{
		"dir":   app.DefaultDir(),
		"store": "sqlite:" + filepath.Join(app.DefaultDir(), "siptrace.db"),
	}
	kctx, code, done := app.Parse("ctl", description, &cli, args, stdout, stderr, vars)
	if done {
		return code
	}
	env := &Env{Context: ctx, Stdin: stdin, Stdout: stdout, Stderr: stderr}
	err := kctx.Run(env)
	var left leave
	if errors.As(err, &left) {
		return int(left)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) && !strings.Contains(err.Error(), "--nats") {
		err = fmt.Errorf("%w; has a tap or db-writer been started with this --nats? They make the streams, and so does: %s stream apply --yes", err, self())
	}
	return app.ExitCode("ctl", err, stderr)
}

// leave ends a command with a code when everything has been said.
type leave int

func (l leave) Error() string { return "leaving" }

// self is how this program was called, for what people are to type next.
func self() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/ctl"
	}
	return filepath.Base(os.Args[0])
}
