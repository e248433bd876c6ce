//go:build unix

package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that PostgreSQL runs as, or nil for our own.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("postgres does not run as root, and there is no user postgres or nobody")
}

// handOver gives files to the user that PostgreSQL runs as.
func handOver(files ...string) error {
	who, err := account()
	if err != nil || who == nil {
		return err
	}
	for _, name := range files {
		if err := os.Chown(name, int(who.Uid), int(who.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// pause stops processes where they are.
func pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// resume lets stopped processes go on.
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
