// Package outage holds the tests of what taps promise while NATS is away: a
// publisher with a real spool, a real server that comes and goes, and
// processes that are killed.
package outage
