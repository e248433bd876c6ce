package sipmsg

import "strings"

// Flags tell what is odd about a message, or could not be read. None of them
// makes a message less of a message: what can be read has been read.
type Flags uint32

const (
	// NotSIP marks input that has no SIP start line. Header fields are read
	// all the same, in case only the start line is broken.
	NotSIP Flags = 1 << iota
	// KeepAlive marks input of nothing but line ends and NULs, or of nothing.
	KeepAlive
	// OddStartLine marks a start line that breaks the grammar: white space
	// that is missing, doubled or in the wrong place, a method that is no
	// token, brackets round the Request-URI.
	OddStartLine
	// BadVersion marks a start line with no SIP version, or not 2.0.
	BadVersion
	// BadStatus marks a response without a status from 100 to 699; Status is 0.
	BadStatus
	// OddRequestURI marks a Request-URI without a scheme, with white space,
	// or with a part that a Request-URI must not have.
	OddRequestURI
	// Folded marks a header field that goes on in a following line.
	Folded
	// BareLF marks a line that ends in LF alone.
	BareLF
	// BareCR marks a line that ends in CR alone, or in more than one CR.
	BareCR
	// NoEnd marks header fields that are not closed by an empty line.
	NoEnd
	// NoColon marks a header line without a colon; the line is passed over.
	NoColon
	// Duplicate marks a second Call-ID, CSeq, From, To, Content-Type or
	// Content-Length; it is passed over.
	Duplicate
	// UnbalancedQuote marks a quotation mark in From, To or Via that never closes.
	UnbalancedQuote
	// OddAddress marks a From or To that breaks the grammar.
	OddAddress
	// OddVia marks a topmost Via that breaks the grammar.
	OddVia
	// BadCallID marks a Call-ID with white space inside.
	BadCallID
	// BadCSeq marks a CSeq whose number or method is missing or broken, or
	// whose number is 2³¹ or more.
	BadCSeq
	// CSeqMismatch marks a request whose CSeq names another method.
	CSeqMismatch
	// BadLength marks a Content-Length that is no number; it counts as absent.
	BadLength
	// ShortBody marks a body that is shorter than its Content-Length.
	ShortBody
	// MissingCallID marks a message without Call-ID, or with an empty one.
	MissingCallID
	// MissingCSeq marks a message without CSeq, or with an empty one.
	MissingCSeq
	// MissingFrom marks a message without From, or with an empty one.
	MissingFrom
	// MissingTo marks a message without To, or with an empty one.
	MissingTo
	// MissingVia marks a message without Via, or with an empty one.
	MissingVia
)

// Has reports whether any of the flags in g is set.
func (f Flags) Has(g Flags) bool { return f&g != 0 }

// flagNames are the names of the flags, from the lowest bit up.
const flagNames = "not-sip keep-alive odd-start-line bad-version bad-status odd-request-uri " +
	"folded bare-lf bare-cr no-end no-colon duplicate unbalanced-quote odd-address odd-via " +
	"bad-call-id bad-cseq cseq-mismatch bad-length short-body " +
	"missing-call-id missing-cseq missing-from missing-to missing-via"

// String lists the flags by name, as in "folded no-end"; it is "" when none is set.
func (f Flags) String() string {
	var set []string
	for i, name := range strings.Fields(flagNames) {
		if f.Has(1 << i) {
			set = append(set, name)
		}
	}
	return strings.Join(set, " ")
}
