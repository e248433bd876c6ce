// Package store is what the databases of siptrace have in common: the [Row] of
// a trace table, how rows are made from events and events from rows, the query
// that finds them, and the [Store] that package postgres and package sqlite
// implement. Package open picks one by URL; storetest holds them to one suite.
//
//	trace.Event ─► Builder ─► Row ─► COPY (postgres) or INSERT (sqlite)
//	trace.Event ◄── Row.Event ◄── Row ◄── pages of a query
//
// A trace table has the columns of Kamailio's sip_trace under the same names,
// and some more. The primary key is (time_stamp, event_id, traced_user), so
// that writing an event again changes nothing.
package store
