package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// Error is a failure of the database that is not about any one event: the
// batch has to be written again.
type Error struct {
	Server string // host:port/database
	Class  string // one of the classes of package store
	Err    error

	what  string // in one line, for a person
	login bool   // the server does not let us in
}

func (e *Error) Error() string { return "postgres " + e.Server + ": " + e.what }

func (e *Error) Unwrap() error { return e.Err }

// explain makes an *Error of what a connection returned.
func (s *Store) explain(err error) error { return explain(err, s.server, s.user) }

func explain(err error, server, user string) error {
	var done *Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	e := &Error{Server: server, Err: err, Class: class(err)}
	var connecting *pgconn.ConnectError
	e.login = errors.As(err, &connecting) && e.Class == store.ClassPermission
	e.what = words(err, server, user)
	return e
}

// words tells what failed and what to try.
func words(err error, server, user string) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "28P01":
			return fmt.Sprintf("password refused for user %q; check --store", user)
		case "28000":
			return fmt.Sprintf("user %q refused: %s; check --store and pg_hba.conf", user, pg.Message)
		case "3D000":
			return fmt.Sprintf("%s; create it, or check --store", pg.Message)
		case "42501":
			return fmt.Sprintf("%s; grant user %q what it lacks", pg.Message, user)
		case "42P01", "42883":
			return fmt.Sprintf("%s; ctl schema apply makes what is missing", pg.Message)
		case "53100":
			return fmt.Sprintf("disk full: %s", pg.Message)
		case "53300":
			return fmt.Sprintf("%s; raise max_connections or use fewer connections", pg.Message)
		case "25006":
			return fmt.Sprintf("%s; is this a standby? name all servers in --store, with target_session_attrs=read-write", pg.Message)
		}
		text := pg.Message
		if pg.Detail != "" {
			text += " (" + pg.Detail + ")"
		}
		return fmt.Sprintf("%s [%s]", text, pg.Code)
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("no such host %q; check --store", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused; is PostgreSQL running there?"
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return "no answer in time"
	}
	return err.Error()
}

// class sorts errors for the metrics, by SQLSTATE. Whatever the server did not
// say itself is trouble with the connection.
func class(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return store.ClassConnection
	}
	if judge(err) == noPartition {
		return store.ClassConflict // somebody drops it, again and again
	}
	switch pg.Code {
	case "42501", "3D000":
		return store.ClassPermission
	case "55P03", "40001", "40P01":
		return store.ClassConflict
	case "25006", "57P01", "57P02", "57P03", "57P05":
		return store.ClassConnection
	case "42P01", "42703", "42804", "22P04", "42883", "3F000":
		return store.ClassSchema
	}
	switch pg.Code[:2] {
	case "28":
		return store.ClassPermission
	case "08":
		return store.ClassConnection
	case "53", "58":
		return store.ClassResources
	}
	return store.ClassOther
}

// A verdict is what to do about an error.
type verdict uint8

const (
	giveBack    verdict = iota // nothing here and now: the caller writes the batch again
	careful                    // a row is a duplicate or is refused
	again                      // another transaction was in the way
	noPartition                // a row has no partition to go to
	stale                      // the table is not as it was when it was looked at
)

func judge(err error) verdict {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return giveBack
	}
	switch pg.Code {
	case "42P01", "42703", "42804", "22P04":
		return stale
	case "40001", "40P01", "55P03":
		return again
	case "23514":
		if pg.Routine == "ExecFindPartition" { // the message may be in any language
			return noPartition
		}
	}
	switch pg.Code[:2] {
	case "22", "23", "54", "P0": // bad value, constraint, limit, raised by a trigger
		return careful
	}
	return giveBack
}

// duplicate is the SQLSTATE of a row that is there already.
const duplicate = "23505"

// code is err's SQLSTATE, or empty.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// line is the number of the row that a COPY failed at, from 1, or 0. The
// server says so in the error's context, in its own language: "COPY sip_trace,
// line 3777, column msg".
func line(err error) int {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return 0
	}
	for context := range strings.Lines(pg.Where) {
		if !strings.HasPrefix(context, "COPY ") {
			continue
		}
		_, rest, _ := strings.Cut(context, ", ")
		rest = strings.TrimLeftFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		end := strings.IndexFunc(rest+" ", func(r rune) bool { return r < '0' || r > '9' })
		if n, err := strconv.Atoi(rest[:end]); err == nil {
			return n
		}
	}
	return 0
}
