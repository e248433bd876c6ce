// Package trace holds the nouns of siptrace: the traced [Event], the [Source]
// that produces events, the [Sink] that keeps them, the [Finder] that looks
// them up, and the frame that carries them over the bus.
//
// A tap runs wire sources into the bus. A worker runs the bus into its sink.
// Learn Source and Sink and you know the program:
//
//	SIP on the wire ─► Source ─► Sink (bus) ─► Source (bus) ─► Sink (database, collector, terminal)
package trace
