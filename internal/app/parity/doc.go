// Package parity holds siptrace against Kamailio's siptrace module: runs of
// Kamailio 5.6.3 were recorded, with what came in, the rows it wrote and every
// datagram it sent, and siptrace has to come to the same. It is tests only.
//
//	testdata/RUN.events.jsonl.gz   one traced event in each line: the message, its columns, its rows
//	testdata/RUN.hep.lp.gz         the HEP datagrams of the run, each with its length in four bytes in front
//	testdata/RUN.dup.lp.gz         its plain-SIP duplicates, likewise
//	testdata/RUN.TABLE.csv.gz      a table as PostgreSQL wrote it out
//	testdata/RUN.pcapng.gz         everything on the wire
//
// Where siptrace comes to something else on purpose, the list of differences
// in differences_test.go says what and why, and how often.
package parity
