package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// errLocked is what lockFile returns when another process holds the lock.
var errLocked = errors.New("held by another process")

// A writerLock says that this process writes the database. It lies beside the
// database and stays there: SQLite's own locks on the file itself would be
// lost if that were opened and closed once more.
type writerLock struct{ file *os.File }

// acquire takes the lock of the database at path, or says who has it.
func acquire(path string) (*writerLock, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", path, err)
	}
	if err := lockFile(f); err != nil {
		holder, _ := os.ReadFile(name)
		f.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("sqlite %s: process %s writes it already; stop that one, or use PostgreSQL for more than one writer",
				path, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("sqlite %s: lock %s: %w", path, name, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only for the message above
	}
	return &writerLock{f}, nil
}

// release gives the lock up.
func (l *writerLock) release() error { return l.file.Close() }
