//go:build unix && !linux

package e2e

import "syscall"

// bound lets what a process starts be ended with it.
func bound() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
