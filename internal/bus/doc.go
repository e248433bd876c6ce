// Package bus is the way between taps and workers: NATS JetStream.
//
//	Publisher (trace.Sink) ─► stream SIPTRACE ─► Consumer (trace.Source), durable, shared
//	                                         └─► Tail (trace.Source), looks without touching
//	StateStore ─► KV bucket siptrace ─► WatchState, in every tap
//	ServeNode  ─► micro services API ─► Nodes, for ctl status
//
// One message of the stream is a frame: HEP3 packets, one behind the other, as
// [trace.AppendEvent] makes them. What a [Publisher] has accepted is in the
// stream or is counted as lost with a reason; what a [Consumer] has read is
// settled only by what its sink says of it.
//
// Nothing here fails because NATS is away. Everything waits for it, says so
// through [Conn.Check], and goes on when it is back.
package bus
