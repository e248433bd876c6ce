// Package forward holds the sinks that send events on: to HEP collectors over
// UDP, TCP or TLS, and as plain copies of the SIP messages over UDP, as
// Kamailio's siptrace module sends its duplicates.
//
//	                   ┌─► HEP over UDP        Open("hep+udp://…")   versions 1, 2 and 3
//	events ─► Sink ────┼─► HEP over TCP, TLS   Open("hep+tcp://…"), Open("hep+tls://…")
//	                   ├─► plain SIP over UDP  Open("sip+udp://…"), Open("sip:…")
//	                   └─► where each event says   NewAddressed(…)
//
// [ParseDestination] reads what a user writes, [Open] makes a [Sink] of it.
// Opening never waits for the far side: a collector that is away makes Write
// fail with an error that can be retried, and [Sink.Check] say what is missing.
//
// What "safe on the far side" means depends on what the far side can tell. Over
// TCP and TLS, Write returns nil when the peer's kernel has acknowledged every
// byte. Over UDP nothing is acknowledged; Write returns nil when the datagrams
// have left, and holds back while the far side's kernel says that nobody
// listens there.
package forward
