// Package app puts siptrace's services together: a module each for tap,
// db-writer and hep-forwarder, and what they share, from the command line to
// the exit code. With cmd it is the only place that knows fx.
package app
