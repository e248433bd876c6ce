package sqlite

import (
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// Measured with 5 million rows: large pages, a large cache and a late
// checkpoint make for half as many rows again as SQLite's own settings.
const (
	pageSize       = 8192   // bytes
	checkpoint     = 10000  // pages of log before it is folded into the file
	writerCache    = 262144 // KiB; taken as the index of Call-IDs grows
	readerCache    = 16384  // KiB
	busyTimeout    = 5000   // ms
	synchronousAck = "FULL" // a commit is on the disk
)

// writerDSN is for the connection that writes. It makes the file.
func writerDSN(path, synchronous string) string {
	return dsn(path, url.Values{
		"mode":          {"rwc"},
		"_txlock":       {"immediate"},
		"_journal_mode": {"WAL"}, // applied after page_size, which it settles for good
		"_synchronous":  {synchronous},
		"_pragma":       {pragma("page_size", pageSize), pragma("wal_autocheckpoint", checkpoint), pragma("cache_size", -writerCache)},
	})
}

// readerDSN is for connections that only read. They never make the file.
func readerDSN(path string) string {
	return dsn(path, url.Values{
		"mode":        {"ro"},
		"_query_only": {"on"},
		"_pragma":     {pragma("cache_size", -readerCache)},
	})
}

func dsn(path string, parameters url.Values) string {
	parameters.Set("_busy_timeout", strconv.Itoa(busyTimeout))
	return fileURI(path) + "?" + parameters.Encode()
}

// fileURI is path, which is absolute, as SQLite reads it; any character may be in it.
func fileURI(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

func pragma(name string, n int) string { return name + "(" + strconv.Itoa(n) + ")" }
