// Package postgres keeps trace rows in PostgreSQL, 14 or later.
//
// A batch is one transaction. Its rows go straight into the partitioned table
// by binary COPY, put together by hand: half the cost of pgx's own. Only when
// that fails on a row (it is there already, or the database refuses it) the
// batch goes again the careful way: through a temporary table and INSERT … ON
// CONFLICT DO NOTHING, under savepoints, until every row is in or is known to
// be refused.
//
//	Write ─► gather: rows by table ─► partitions made ─► BEGIN, COPY …, COMMIT
//	                                                      └─ a row fails ─► careful
package postgres
