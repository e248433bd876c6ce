// Package e2e tests siptrace from the outside: the programs as they are built
// for a release, beside a real NATS, a real PostgreSQL, a real Kamailio and
// SIPp, on loopback. It has nothing but tests.
//
// Tests that need Kamailio and SIPp, or PostgreSQL, are skipped where these
// are not installed, and fail there with SIPTRACE_TEST_KAMAILIO=require and
// SIPTRACE_TEST_POSTGRES=require.
package e2e
