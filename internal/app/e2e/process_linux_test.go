package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// bound lets a process, and what it starts, not outlive the tests: the whole
// group can be ended, and its first process ends with us.
func bound() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// mustOnTerminal is must for somebody who sits at a terminal.
func mustOnTerminal(t *testing.T, name string, args ...string) string {
	t.Helper()
	keeper, terminal := openTerminal(t)
	defer keeper.Close()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programsDir, name), args...)
	cmd.Env = environment(t)
	cmd.Dir = t.TempDir()
	cmd.Stdout = terminal
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = terminal.Close() // the program has it
	var out bytes.Buffer
	_, _ = io.Copy(&out, keeper) // a terminal ends with an error
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// openTerminal returns a terminal and what is written to it.
func openTerminal(t *testing.T) (keeper, terminal *os.File) {
	t.Helper()
	keeper, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(keeper.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keeper.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return keeper, terminal
}

// waiting is how many bytes the kernel has taken on a connection that were not read.
func waiting(conn *net.TCPConn) int {
	n := 0
	raw, err := conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}
