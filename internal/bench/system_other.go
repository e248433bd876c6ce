//go:build !linux

package bench

import (
	"errors"
	"os/exec"
	"runtime"
)

// errLinux is the one answer here.
var errLinux = errors.New("benchmarks of whole processes run on Linux only")

func apart(*exec.Cmd) {}

func onCores(int, func() error) error { return errLinux }

func room(string) (int64, bool, error) { return 0, false, errLinux }

func kernel() string { return runtime.GOOS }
