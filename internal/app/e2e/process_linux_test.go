package e2e

import "syscall"

// bound lets a process, and what it starts, not outlive the tests: the whole
// group can be ended, and its first process ends with us.
func bound() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
