//go:build !linux

package forward

import (
	"syscall"
	"time"
)

// unacknowledged cannot be asked for here. So a Write counts as done when this
// machine's kernel has the bytes: what it had not yet sent when a connection
// broke is lost, unless the end of the connection was noticed first.
func unacknowledged(syscall.RawConn) (uint64, error) { return 0, nil }

// setUserTimeout leaves the timeout to the system.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
