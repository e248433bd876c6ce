//go:build unix && !linux

package pgserver

import (
	"os"
	"syscall"
	"time"
)

// attributes let a process run as PostgreSQL wants it.
func attributes() (*syscall.SysProcAttr, error) {
	who, err := account()
	return &syscall.SysProcAttr{Credential: who}, err
}

// children returns none: a pause here stops only the process that takes connections.
func children(int) []*os.Process { return nil }

// cpuTime is not known here.
func cpuTime(int) time.Duration { return 0 }
