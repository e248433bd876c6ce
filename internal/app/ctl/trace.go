package ctl

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// TraceCmd is ctl trace.
type TraceCmd struct {
	On    TraceOnCmd    `cmd:"" help:"Switch tracing on, on every tap."`
	Off   TraceOffCmd   `cmd:"" help:"Switch tracing off, on every tap."`
	Check TraceCheckCmd `cmd:"" help:"Say whether tracing is on."`
}

// natsTimeout is how long a command waits for NATS before it says so.
const natsTimeout = 5 * time.Second

// connect returns a connection that answers, or says why there is none.
func connect(env *Env, f *app.BusFlags) (*bus.Conn, error) {
	o := f.Options("ctl")
	o.Denied = env.sayDenied()
	c, err := bus.Connect(o, env.log())
	if err != nil {
		return nil, app.UsageError{Err: err}
	}
	ctx, cancel := context.WithTimeout(env, natsTimeout)
	defer cancel()
	if err := c.Await(ctx); err != nil {
		why := c.Check(env)
		c.Close()
		if env.Err() != nil || why == nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w; %s", why, cure(why))
	}
	return c, nil
}

// cure is what to try when NATS cannot be reached.
func cure(why error) string {
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.Is(why, nats.ErrAuthorization), errors.Is(why, nats.ErrAuthExpired):
		return "check user and password in --nats, or --creds, --nkey"
	case errors.As(why, &untrusted):
		return "name the authority that has signed its certificate with --tls-ca"
	}
	return fmt.Sprintf("is it running? start one with: %s up, or name another with --nats", self())
}

// SwitchFlags are how a switch is explained and ended.
type SwitchFlags struct {
	app.BusFlags
	Reason string       `help:"Why; shown by check and kept in the history." placeholder:"TEXT"`
	For    app.Duration `help:"Switch back by itself after this long." placeholder:"DURATION"`
	Who    string       `help:"Who switches. Default: USER@HOST." placeholder:"NAME"`
	JSON   bool         `name:"json" help:"Print the state as JSON."`
}

// TraceOnCmd is ctl trace on.
type TraceOnCmd struct{ SwitchFlags }

// Run switches on.
func (c *TraceOnCmd) Run(env *Env) error { return c.set(env, true) }

// TraceOffCmd is ctl trace off.
type TraceOffCmd struct{ SwitchFlags }

// Run switches off.
func (c *TraceOffCmd) Run(env *Env) error { return c.set(env, false) }

func (f *SwitchFlags) set(env *Env, on bool) error {
	c, err := connect(env, &f.BusFlags)
	if err != nil {
		return err
	}
	defer c.Close()
	now := time.Now().UTC()
	s := bus.State{On: on, Who: f.Who, Why: f.Reason, When: now}
	if s.Who == "" {
		s.Who = caller()
	}
	if f.For > 0 {
		s.Until = now.Add(time.Duration(f.For))
	}
	states := bus.NewStateStore(c)
	before, err := states.Get(env)
	if err != nil {
		return err
	}
	s.Revision = before.Revision
	if s, err = states.Set(env, s); err != nil {
		return err
	}
	return sayState(env, s, f.JSON)
}

// TraceCheckCmd is ctl trace check.
type TraceCheckCmd struct {
	app.BusFlags
	JSON bool `name:"json" help:"Print the state as JSON."`
}

// Run says what the state is.
func (c *TraceCheckCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	s, err := bus.NewStateStore(conn).Get(env)
	if err != nil {
		return err
	}
	return sayState(env, s, c.JSON)
}

// sayState prints siptrace's own word on stdout and the rest on stderr.
func sayState(env *Env, s bus.State, asJSON bool) error {
	now := time.Now()
	on := s.Effective(now)
	if asJSON {
		return json.NewEncoder(env.Stdout).Encode(struct {
			Enabled bool `json:"enabled"`
			bus.State
			Revision uint64 `json:"revision"`
		}{on, s, s.Revision})
	}
	word := "Disabled"
	if on {
		word = "Enabled"
	}
	if _, err := fmt.Fprintln(env.Stdout, word); err != nil {
		return err
	}
	if s.Revision == 0 {
		fmt.Fprintln(env.Stderr, "nobody has switched yet: on is the default")
		return nil
	}
	fmt.Fprintf(env.Stderr, "set by %s at %s", s.Who, s.When.Local().Format(time.DateTime))
	if s.Why != "" {
		fmt.Fprintf(env.Stderr, ": %s", s.Why)
	}
	if !s.Until.IsZero() {
		if s.Until.After(now) {
			fmt.Fprintf(env.Stderr, "; until %s", s.Until.Local().Format(time.DateTime))
		} else {
			fmt.Fprintf(env.Stderr, "; that ended at %s", s.Until.Local().Format(time.DateTime))
		}
	}
	fmt.Fprintln(env.Stderr)
	return nil
}

// caller is who calls, for the history.
func caller() string {
	name := os.Getenv("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, _ := os.Hostname()
	return name + "@" + host
}
