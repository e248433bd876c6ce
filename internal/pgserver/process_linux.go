package pgserver

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// attributes let a process run as PostgreSQL wants it and not outlive us.
func attributes() (*syscall.SysProcAttr, error) {
	who, err := account()
	return &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT}, err
}

// children returns the processes that parent has started.
func children(parent int) []*os.Process {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	var list []*os.Process
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …; a name may hold anything, so from its end
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			continue
		}
		if p, err := os.FindProcess(pid); err == nil {
			list = append(list, p)
		}
	}
	return list
}
