package forward

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged is the number of bytes that the kernel took from us and the
// peer's kernel has not acknowledged.
func unacknowledged(raw syscall.RawConn) (uint64, error) {
	var n int
	var err error
	if e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); e != nil {
		return 0, e
	}
	return uint64(max(n, 0)), os.NewSyscallError("ioctl SIOCOUTQ", err)
}

// setUserTimeout makes the kernel give up a connection whose peer acknowledges
// nothing for d.
func setUserTimeout(raw syscall.RawConn, d time.Duration) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt TCP_USER_TIMEOUT", err)
}
