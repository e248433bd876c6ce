package bench

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// apart makes a program to be started one that we end ourselves, in our own
// order, when a terminal's Ctrl-C ends us; and one that does not outlive us.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// onCores calls start, and confines the processes that it starts to the first
// n of the cores that this process may use.
func onCores(n int, start func() error) (err error) {
	runtime.LockOSThread() // cores are a matter of the thread, and a child begins with those of its parent's
	defer runtime.UnlockOSThread()
	var all, few unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("cores: %w", err)
	}
	if all.Count() <= n {
		return start()
	}
	for cpu := 0; few.Count() < n; cpu++ {
		if all.IsSet(cpu) {
			few.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &few); err != nil {
		return fmt.Errorf("cores: %w", err)
	}
	defer func() {
		if back := unix.SchedSetaffinity(0, &all); back != nil {
			err = errors.Join(err, fmt.Errorf("cores: %w", back))
		}
	}()
	return start()
}

// room is how many bytes are free in a folder's file system, and whether that
// is one in memory.
func room(dir string) (free int64, memory bool, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false, fmt.Errorf("%s: %w", dir, err)
	}
	kind := uint32(s.Type)
	return int64(s.Bavail) * int64(s.Bsize), kind == unix.TMPFS_MAGIC || kind == unix.RAMFS_MAGIC, nil
}

// kernel is the kernel's release.
func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}
