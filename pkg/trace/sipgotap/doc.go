// Package sipgotap traces a program that is built on github.com/emiago/sipgo,
// from inside of it: every SIP message in and out, byte for byte, with its true
// transport, addresses and direction. TLS and WebSocket hide nothing from it.
//
//	tap := sipgotap.New(sipgotap.Options{Agent: trace.Agent{Name: "edge1"}})
//	sink, err := sipgotap.NewHEPSink("hep+udp://127.0.0.1:9060")
//	…
//	tap.Install()                               // what the program dials
//	go tap.Run(ctx, sink)                       // a trace.Source
//	srv.ServeUDP(tap.WrapPacketConn(udp))       // what it listens on
//	srv.ServeTLS(tap.WrapListener(tls, trace.TLS))
//
// # Never in the way of a call
//
// What the program sends and receives is copied into a bounded buffer, and
// [Tap.Run] brings it from there to the sink. Nothing else happens in the
// program's own goroutines: no system call, no waiting, no allocation to speak
// of. A sink that is slow or dead fills the buffer; then messages are dropped,
// and counted: see [Stats].
//
// # Two ways to see a message
//
// Wrapped sockets are the better one. [Tap.WrapPacketConn] and
// [Tap.WrapListener] know the transport, the moment, and on a wildcard bind the
// local address of every message. [Tap.Install] is for what cannot be wrapped:
// connections that sipgo dials itself, and sockets of ListenAndServe. It is
// sipgo's own tracer, which is one for the whole process, says TCP for TLS, and
// knows no local address of a wildcard bind. The transport is then read from
// the topmost Via or from Options.Ports, the local address from the routing
// table. Both may be used together: nothing is traced twice.
//
// # Marks
//
// [Tap.Message] is for the program what sip_trace() is for a script of
// Kamailio: it marks a message, its transaction or its dialog with traced
// users, a table, destinations. With Options.Selective only what is marked is
// traced. [Tap.Log] puts a line of text beside the messages of a call.
package sipgotap
