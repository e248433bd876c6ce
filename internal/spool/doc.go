// Package spool keeps records on disk, in order and within bounds, while
// nobody takes them: what a tap has captured while NATS is away.
//
//	Append ─► file 41 │ file 42 │ file 43 ─► Next ─► Done
//	          newest                oldest     handed out, and gone when done
//
// What Append has returned for is fsynced. It is handed out by Next, oldest
// first, and forgotten when Done says that it is safe elsewhere; also by the
// next process that opens the folder, when this one is killed. A record may be
// handed out again then, never out of order.
//
// Each file is a bbolt database that is written by one process only, read, and
// removed whole, so that the disk is given back as it drains and a damaged file
// costs what is in it and no more. The index, another one, is the lock of the
// folder and remembers what is done.
package spool
