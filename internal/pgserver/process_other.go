//go:build !unix

package pgserver

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// binaries finds nothing: private servers are for Unix.
func binaries() (string, error) { return "", ErrNotInstalled }

func attributes() (*syscall.SysProcAttr, error) { return nil, ErrNotInstalled }

func handOver(...string) error { return nil }

func pause(*os.Process) error { return errors.ErrUnsupported }

func resume(*os.Process) error { return errors.ErrUnsupported }

func children(int) []*os.Process { return nil }

func cpuTime(int) time.Duration { return 0 }
