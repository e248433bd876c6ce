//go:build unix && !linux

package e2e

import (
	"net"
	"syscall"
	"testing"
)

// bound lets what a process starts be ended with it.
func bound() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// mustOnTerminal is for Linux alone.
func mustOnTerminal(t *testing.T, _ string, _ ...string) string {
	t.Helper()
	t.Skip("no terminal of our own on this system")
	return ""
}

// waiting is known on Linux alone.
func waiting(*net.TCPConn) int { return 0 }
