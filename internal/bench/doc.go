// Package bench measures siptrace as its users run it: the real programs in
// processes of their own, real servers behind them, realistic messages at a
// steady rate in front. It counts what was sent and what is stored, and says
// for every event that is missing where it went.
//
// A benchmark never fails because the machine is slow: it prints what was
// wanted and what was measured.
package bench
