package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/dig"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"

	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// LogFlags choose how a service logs, on standard error.
type LogFlags struct {
	LogLevel  string `help:"debug, info, warn or error." default:"info" placeholder:"LEVEL"`
	LogFormat string `help:"text, json, or auto: text on a terminal, else json." default:"auto" placeholder:"FORMAT"`
}

// HTTPFlags choose where a service answers operators.
type HTTPFlags struct {
	HTTP string `name:"http" help:"Address for /metrics, /healthz and /readyz; empty for none." default:"${http}" placeholder:"HOST:PORT"`
}

func (f *HTTPFlags) validate() error {
	if f.HTTP == "" {
		return nil
	}
	return checkAddr("--http", f.HTTP)
}

// checkAddr reports whether the value of a flag is no HOST:PORT.
func checkAddr(flag, value string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%s %q is no HOST:PORT", flag, value)
	}
	return nil
}

// A Service is one of siptrace's long-running programs.
type Service interface {
	// Validate reports the first wrong value, before anything starts.
	Validate() error
	// Module wires the service; its constructors open what they need.
	Module() fx.Option
	// check reads what the flags name, files above all, and starts nothing.
	check() error
	// common are the flags all services have.
	common() *ServiceFlags
	// defaultHTTP is where the service answers operators: each kind at a port
	// of its own, so that one machine can run them all.
	defaultHTTP() string
}

// ServiceFlags are the flags all services have.
type ServiceFlags struct {
	ConfigFlags
	DryFlags
	LogFlags
	HTTPFlags
	BusFlags
	StreamFlags
}

// stopTimeout is how long a service may take to hand over what it holds.
const stopTimeout = 30 * time.Second

// drainTimeout is how much of that a write that does not come to its end may
// take, so that time is left to give back what it did not bring.
const drainTimeout = 20 * time.Second

// Main is a service's whole program: parse, check, run until a signal, and
// return the exit code.
func Main(name, description string, s Service, args []string, stdout, stderr io.Writer) int {
	kctx, code, done := Parse(name, description, s, args, stdout, stderr, kong.Vars{"http": s.defaultHTTP()})
	if done {
		return code
	}
	c := s.common()
	if err := errors.Join(s.Validate(), c.HTTPFlags.validate(), c.StreamFlags.validate()); err != nil {
		return ExitCode(name, UsageError{err}, stderr)
	}
	if c.PrintConfig {
		return ExitCode(name, PrintConfig(stdout, kctx), stderr)
	}
	log, err := telemetry.NewLogger(stderr, c.LogLevel, c.LogFormat)
	if err != nil {
		return ExitCode(name, UsageError{err}, stderr)
	}
	if c.Check {
		if err := errors.Join(c.BusFlags.check(name), s.check()); err != nil {
			return ExitCode(name, err, stderr)
		}
		fmt.Fprintf(stdout, "%s: configuration is good\n", name)
		return ExitDone
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, log, Base(log), s.Module(), Observe(c.HTTP, true))
}

// Base supplies what every module needs: the logger and the metrics.
func Base(log *slog.Logger) fx.Option {
	reg := telemetry.NewRegistry()
	return fx.Options(
		fx.Supply(log, reg),
		fx.Provide(func() prometheus.Registerer { return reg }),
		fx.StopTimeout(stopTimeout),
		fx.WithLogger(func() fxevent.Logger {
			l := &fxevent.SlogLogger{Logger: log}
			l.UseLogLevel(slog.LevelDebug)
			l.UseErrorLevel(slog.LevelDebug) // Run says what went wrong, without the graph
			return l
		}),
	)
}

// Run starts the app, waits for ctx or for a service to give up, stops it in
// order and returns the exit code.
func Run(ctx context.Context, log *slog.Logger, options ...fx.Option) int {
	app := fx.New(options...)
	start, cancel := context.WithTimeout(ctx, app.StartTimeout())
	defer cancel()
	if err := app.Start(start); err != nil {
		if ctx.Err() != nil {
			return ExitDone // asked to stop before it had begun
		}
		log.Error("not started", "err", plain(err))
		return ExitFailed
	}
	code := ExitDone
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case sig := <-app.Wait():
		code = sig.ExitCode
	}
	stop, cancelStop := context.WithTimeout(context.Background(), app.StopTimeout())
	defer cancelStop()
	if err := app.Stop(stop); err != nil {
		log.Error("not stopped cleanly", "err", plain(err))
		return ExitFailed
	}
	log.Info("stopped")
	return code
}

// plain is the error that a constructor returned, without fx's account of the
// graph around it.
func plain(err error) error {
	if root := dig.RootCause(err); root != nil {
		return root
	}
	return err
}

// Observe serves metrics, health and readiness for all modules of the app. It
// waits for an address that is taken, or fails.
func Observe(addr string, waits bool) fx.Option {
	if addr == "" {
		return fx.Options()
	}
	return fx.Module("http",
		fx.Invoke(fx.Annotate(
			func(lc fx.Lifecycle, sd fx.Shutdowner, log *slog.Logger, reg *prometheus.Registry, checks []telemetry.Check) error {
				open := func() (*telemetry.Server, error) { return telemetry.Listen(addr, reg, log, checks...) }
				return atPort(lc, sd, newPorts(waits, log), "http", open, func(ctx context.Context, s *telemetry.Server) error {
					s.Start()
					log.Info("http ready", "addr", s.Addr().String())
					<-ctx.Done()
					stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpTime)
					defer cancel()
					return s.Stop(stop)
				})
			},
			fx.ParamTags("", "", "", "", `group:"checks"`),
		)),
	)
}

// httpTime is how long a request under way may take at the end.
const httpTime = 5 * time.Second

// runner keeps a function running for as long as the app lives and waits for
// its end. A function that ends by itself with an error ends the app.
func runner(lc fx.Lifecycle, sd fx.Shutdowner, log *slog.Logger, what string, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	lc.Append(fx.StartStopHook(
		func() {
			go func() {
				defer close(done)
				if err := run(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
					log.Error(what+" ended", "err", err)
					_ = sd.Shutdown(fx.ExitCode(ExitFailed))
				}
			}()
		},
		func(stop context.Context) error {
			cancel()
			select {
			case <-done:
				return nil
			case <-stop.Done():
				return fmt.Errorf("%s did not end in time: %w", what, stop.Err())
			}
		},
	))
}
