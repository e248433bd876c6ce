package bus

import "strings"

// What siptrace calls its things in NATS.
const (
	StreamName        = "SIPTRACE"         // frames of events
	RejectsStreamName = "SIPTRACE_REJECTS" // what a worker gave up on
	BucketName        = "siptrace"         // key-value bucket: state and rules

	EventsSubject  = "siptrace.v1.events" // siptrace.v1.events.<shard>.<agent>
	RejectsSubject = "siptrace.v1.rejects"
	ControlSubject = "siptrace.v1.ctl" // the bucket's keys, republished as plain messages
)

// Headers of a message. There is one set for a frame, none for an event.
const (
	HeaderFrame    = "Siptrace-Frame"   // version of the frame format: "1"
	HeaderEncoding = "Content-Encoding" // "s2", or absent for plain HEP3

	HeaderReason = "Siptrace-Reason" // of a reject: a constant phrase
	HeaderDetail = "Siptrace-Detail" // the far side's own words
	HeaderWorker = "Siptrace-Worker" // who rejected it
	HeaderTime   = "Siptrace-Time"   // when, RFC 3339
	HeaderCut    = "Siptrace-Cut"    // present when the body was too long to be kept whole
)

const (
	frameVersion = "1"
	encodingS2   = "s2"

	maxToken = 32
)

// Token makes s fit to be one token of a subject: letters, digits, '-' and '_',
// at most 32 of them. Whatever else s holds becomes '_'. Nothing becomes "-".
func Token(s string) string {
	if len(s) > maxToken {
		s = s[:maxToken]
	}
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, s)
}
