package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// portRetry is how long to wait before an address is tried again.
const portRetry = time.Second

// ports are the addresses that a service is to listen at. One that is taken is
// waited for: whoever has it may be about to end.
type ports struct {
	waits bool // else what is taken is an error
	log   *slog.Logger

	mu      sync.Mutex
	waiting map[string]error
}

func newPorts(waits bool, log *slog.Logger) *ports {
	return &ports{waits: waits, log: log, waiting: make(map[string]error)}
}

// check says what is waited for.
func (p *ports) check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []error
	for _, what := range slices.Sorted(maps.Keys(p.waiting)) {
		all = append(all, p.waiting[what])
	}
	return errors.Join(all...)
}

// checks are what /readyz and ctl status are told.
func (p *ports) checks() []telemetry.Check {
	return []telemetry.Check{{Name: "inputs", Func: p.check}}
}

// set notes why something is not open; nil is that it is.
func (p *ports) set(what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, before := p.waiting[what]
	delete(p.waiting, what)
	if err == nil {
		return
	}
	p.waiting[what] = err
	if !before {
		try := "ss -lnptu, which shows who has it"
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			try = "ip address, which shows those of this machine"
		}
		p.log.Warn("address not to be had, trying again", "what", what, "try", try, "err", err)
	}
}

// held reports whether an address cannot be had now and may be later: somebody
// has it, or this machine does not have it yet.
func held(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// atPort opens something and runs it for as long as the app lives: at once or,
// where its address is waited for, when it can be had.
func atPort[T any](lc fx.Lifecycle, sd fx.Shutdowner, p *ports, what string, open func() (T, error), run func(ctx context.Context, opened T) error) error {
	opened, err := open()
	late := p.waits && held(err)
	switch {
	case late:
		p.set(what, err)
	case err != nil:
		return err
	}
	runner(lc, sd, p.log, what, func(ctx context.Context) error {
		for ; late; late = held(err) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(portRetry):
			}
			opened, err = open()
			if p.set(what, err); err != nil && !held(err) {
				return err
			}
		}
		return run(ctx, opened)
	})
	return nil
}
