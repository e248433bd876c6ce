package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// errClosed is the error of a sink that is closed.
var errClosed = net.ErrClosed

// state remembers how it went last, and says in the log when that changes.
type state struct {
	d    Destination
	log  *slog.Logger
	warn throttle

	mu  sync.Mutex
	err error // nil is good, or not known yet
}

// set notes how it went, and says so.
func (s *state) set(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, errClosed) {
		return // says nothing of the far side
	}
	was := s.note(err)
	switch {
	case isLoop(err):
		if count, ok := s.warn.allow(time.Now()); ok {
			s.log.Warn("destination leads back to this fleet, events skipped", "count", count, "err", plain(err))
		}
	case err != nil:
		if count, ok := s.warn.allow(time.Now()); ok {
			s.log.Warn("collector away, trying again", "count", count, "err", plain(err))
		}
	case was != nil:
		s.log.Info("collector is back")
	}
}

// note notes how it went, and returns how it went before.
func (s *state) note(err error) (was error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, s.err = s.err, err
	return was
}

// check says what is being waited for.
func (s *state) check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("waiting for collector %s: %w", s.d.HostPort(), plain(s.err))
}

// plain takes off an error of package net what the reader knows already:
// "dial tcp 192.0.2.1:9060: connect: connection refused" is "connection
// refused".
func plain(err error) error {
	var errno syscall.Errno
	var dns *net.DNSError
	var loop *loopError
	switch {
	case errors.As(err, &loop):
		return loop
	case errors.As(err, &errno):
		return errno
	case errors.As(err, &dns):
		return dns
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return err
}
