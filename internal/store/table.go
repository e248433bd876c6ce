package store

import (
	"errors"
	"fmt"
	"strings"
)

// ErrTableName is a table name that [CheckTable] refuses.
var ErrTableName = errors.New("a table name is a small letter and up to 39 small letters, digits and underscores")

const maxTableName = 40 // the database's 63 less room for the names of partitions and indexes

// CheckTable reports why a name is not fit for a trace table. A name that
// passes needs no quoting in SQL, though it is quoted all the same.
func CheckTable(name string) error {
	if name == "" || len(name) > maxTableName || name[0] < 'a' || name[0] > 'z' {
		return tableNameError(name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return tableNameError(name)
		}
	}
	return nil
}

// CheckNewTable reports why a trace table of that name must not be made:
// besides what [CheckTable] refuses, the names that siptrace gives to views
// and partitions, and those that databases keep for themselves.
func CheckNewTable(name string) error {
	if err := CheckTable(name); err != nil {
		return err
	}
	if strings.HasSuffix(name, "_text") || strings.HasSuffix(name, "_callid") || strings.HasPrefix(name, "pg_") || strings.HasPrefix(name, "sqlite_") || partitionName(name) {
		return fmt.Errorf("table name %q is kept for views, partitions and the database itself", name)
	}
	return nil
}

func tableNameError(name string) error {
	if len(name) > maxTableName {
		name = name[:maxTableName] + "…"
	}
	return fmt.Errorf("table name %q: %w", name, ErrTableName)
}

// partitionName reports whether name ends in _pYYYYMMDD or _pYYYYMMDD_HH.
func partitionName(name string) bool {
	for _, tail := range [...]string{"_p00000000", "_p00000000_00"} {
		if len(name) < len(tail) {
			continue
		}
		end := strings.Map(func(r rune) rune {
			if '0' <= r && r <= '9' {
				return '0'
			}
			return r
		}, name[len(name)-len(tail):])
		if end == tail {
			return true
		}
	}
	return false
}
