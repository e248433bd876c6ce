package sipmsg

// A kind is a header field that Scan reads.
type kind uint8

const (
	kindOther kind = iota
	kindCallID
	kindCSeq
	kindFrom
	kindTo
	kindVia
	kindUserAgent
	kindServer
	kindContentType
	kindContentLength
)

// kindOf tells a header field by its name, in any case, long or compact.
func kindOf(name []byte) kind {
	switch len(name) {
	case 1:
		switch name[0] | 0x20 {
		case 'v':
			return kindVia
		case 'f':
			return kindFrom
		case 't':
			return kindTo
		case 'i':
			return kindCallID
		case 'c':
			return kindContentType
		case 'l':
			return kindContentLength
		}
	case 2:
		return when(name, "To", kindTo)
	case 3:
		return when(name, "Via", kindVia)
	case 4:
		if name[0]|0x20 == 'f' {
			return when(name, "From", kindFrom)
		}
		return when(name, "CSeq", kindCSeq)
	case 6:
		return when(name, "Server", kindServer)
	case 7:
		return when(name, "Call-ID", kindCallID)
	case 10:
		return when(name, "User-Agent", kindUserAgent)
	case 12:
		return when(name, "Content-Type", kindContentType)
	case 14:
		return when(name, "Content-Length", kindContentLength)
	}
	return kindOther
}

// when is k if name is the wanted one.
func when(name []byte, want string, k kind) kind {
	if equalFold(name, want) {
		return k
	}
	return kindOther
}

// equalFold compares without regard to the case of ASCII letters.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	if string(b) == s {
		return true
	}
	for i, c := range b {
		if lower(c) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// long gives the full name of a header field that has a compact form, and any
// other name as it is.
func long(name string) string {
	if len(name) == 1 {
		if full := longOf(name[0]); full != "" {
			return full
		}
	}
	return name
}

// longOf gives the name that a compact form stands for, and "" if it is none.
func longOf(c byte) string {
	switch lower(c) {
	case 'a':
		return "Accept-Contact"
	case 'b':
		return "Referred-By"
	case 'c':
		return "Content-Type"
	case 'd':
		return "Request-Disposition"
	case 'e':
		return "Content-Encoding"
	case 'f':
		return "From"
	case 'i':
		return "Call-ID"
	case 'j':
		return "Reject-Contact"
	case 'k':
		return "Supported"
	case 'l':
		return "Content-Length"
	case 'm':
		return "Contact"
	case 'n':
		return "Identity-Info"
	case 'o':
		return "Event"
	case 'r':
		return "Refer-To"
	case 's':
		return "Subject"
	case 't':
		return "To"
	case 'u':
		return "Allow-Events"
	case 'v':
		return "Via"
	case 'x':
		return "Session-Expires"
	case 'y':
		return "Identity"
	}
	return ""
}
