// Package listen holds the sources that strangers send to: HEP over UDP, TCP
// and TLS, and plain-SIP duplicates over UDP. Each is a [trace.Source] on a
// socket of its own; [ParseInput] makes one of a URL.
//
// What comes off a socket is believed in nothing. A packet that is no HEP is
// counted by its reason, spoken of at most once a second, and takes no
// neighbour with it. Between the socket and the sink nothing is allocated per
// event, and nothing waits but for the socket.
package listen
