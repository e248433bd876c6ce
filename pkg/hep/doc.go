// Package hep reads and writes HEP, the Homer encapsulation protocol, in its
// versions 1, 2 and 3, and version 3 under its other name EEP. It uses the
// standard library only and knows nothing of what it carries.
//
// A version 3 packet says its own length and is made of chunks, in any order;
// every number is big endian:
//
//	 0       4       6                                       total
//	┌───────┬───────┬────────┬────────┬─   ─┬───────────────┐
//	│ HEP3  │ total │ chunk  │ chunk  │  …  │ chunk         │
//	└───────┴───────┴────────┴────────┴─   ─┴───────────────┘
//	                 0        2        4        6            length
//	                ┌────────┬────────┬────────┬─           ─┐
//	        chunk = │ vendor │ type   │ length │ body        │
//	                └────────┴────────┴────────┴─           ─┘
//
// Versions 1 and 2 are one datagram with a fixed head and nothing but SIP
// behind it:
//
//	 0   1    2      3     4         6        8
//	┌───┬────┬──────┬─────┬─────────┬────────┬─────┬─────┬────────────┬─────────┐
//	│1|2│hp_l│family│proto│src port │dst port│ src │ dst │ v2: time   │ payload │
//	└───┴────┴──────┴─────┴─────────┴────────┴─────┴─────┴────────────┴─────────┘
//	                                          4|16  4|16  4 sec 4 usec 2 id 2 pad
//
// The time block of version 2 is in the byte order of the machine that sent
// it, little endian in practice.
//
// [Decode] and the zero [Decoder] hold a packet to these rules. A lenient
// Decoder reads what real agents send. Neither panics, loops or allocates
// beyond what its documentation says, whatever the bytes. [Reader] takes
// packets off a stream, [Packet.Append] writes them.
package hep
