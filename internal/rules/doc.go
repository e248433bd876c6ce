// Package rules gives a [trace.Rule] its meaning: which messages it selects,
// and what becomes of them.
//
//	trace.Rule ─Compile─► *Rule ─NewSet─► *Set ─Engine.Use─► Engine.Decide(events)
//
// Selectors become functions on the spans that [sipmsg.Scan] has found; rules
// that name users or Call-IDs are found by them, so that a hundred rules cost
// a message about as much as one. A rule of scope dialog notes the Call-ID of
// what it selects, and takes what comes with it from then on. The Call-IDs are
// kept in a table of fixed size.
//
// What is written in a rule may come from anybody who can write to the bucket:
// [Compile] refuses what is out of bounds and says where, and nothing that a
// message holds makes a decision slower than its length.
package rules
