package pgserver

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// attributes let a process run as PostgreSQL wants it and not outlive us.
func attributes() (*syscall.SysProcAttr, error) {
	who, err := account()
	return &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT}, err
}

// children returns the processes that parent has started.
func children(parent int) []*os.Process {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	var list []*os.Process
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil || statField(pid, statParent) != int64(parent) {
			continue
		}
		if p, err := os.FindProcess(pid); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// cpuTime is what a process has used of the processors, in user mode and in the kernel.
func cpuTime(pid int) time.Duration {
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(statField(pid, statUser)+statField(pid, statSystem)) * tick
}

// Fields of /proc/PID/stat, counted from the one behind the name.
const (
	statParent = 1
	statUser   = 11
	statSystem = 12
)

// statField reads a field of /proc/PID/stat, or -1 when the process has ended.
func statField(pid, field int) int64 {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return -1
	}
	// pid (name) state ppid …; a name may hold anything, so from its end
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= field {
		return -1
	}
	n, err := strconv.ParseInt(string(fields[field]), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
