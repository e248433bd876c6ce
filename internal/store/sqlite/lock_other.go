//go:build !unix || solaris || aix

package sqlite

import "os"

// lockFile does nothing: here nobody keeps a second writer away but SQLite's
// own locks, behind which it waits.
func lockFile(*os.File) error { return nil }
