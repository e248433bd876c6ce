// Package export holds the sinks that write events to files:
//
//	pcap:FILE     Wireshark, sngrep, tcpdump: times, addresses and messages
//	pcapng:FILE   the same, with what a packet cannot say in a comment on each
//	hep:FILE      HEP3 packets one behind the other: everything siptrace knows
//	text:FILE     for people
//	json:FILE     one object a line, for programs
//
// "-" in place of FILE is standard output. [Parse] reads what a user writes,
// [Create] makes a [File] of it.
//
// Packets are made up around the messages, for what was captured is messages:
// Ethernet with the event's VLAN, IPv4 or IPv6 with its addresses, and UDP
// whatever the transport was. A message that came over TCP, TLS or WebSocket
// is whole in one datagram, as no reader would find it in segments whose
// handshake is missing or whose bytes on the wire were encrypted.
package export
