// Package sqlite keeps trace rows in one SQLite file: nothing to install, one
// process that writes, any number that read.
//
// The file is in WAL mode, so readers do not hold up the writer nor the writer
// them. One transaction takes one batch, and one prepared statement is run for
// each row of it: for SQLite the fastest form.
package sqlite
