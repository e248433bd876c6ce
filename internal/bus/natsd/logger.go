package natsd

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// logger hands the server's words to slog. What the server calls a notice is
// its start-up chatter: Debug here. Fatal errors are kept for [Start]; the
// process goes on.
type logger struct {
	log *slog.Logger

	mu    sync.Mutex
	fatal error
}

func (l *logger) Noticef(format string, v ...any) { l.say(l.log.Debug, format, v) }
func (l *logger) Warnf(format string, v ...any)   { l.say(l.log.Warn, format, v) }
func (l *logger) Errorf(format string, v ...any)  { l.say(l.log.Error, format, v) }
func (l *logger) Debugf(string, ...any)           {}
func (l *logger) Tracef(string, ...any)           {}

func (l *logger) Fatalf(format string, v ...any) {
	l.say(l.log.Error, format, v)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = errors.New(strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

func (l *logger) say(level func(string, ...any), format string, v []any) {
	level("nats server", "says", strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l *logger) fatalError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
