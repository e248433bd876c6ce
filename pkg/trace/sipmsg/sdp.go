package sipmsg

import "bytes"

// carriesSDP reports whether a body of that type is, or has a part that is, SDP.
func carriesSDP(contentType, body []byte) bool {
	switch {
	case len(contentType) == 0 || len(body) == 0:
		return false
	case isType(contentType, "application", "sdp"):
		return true
	case !isType(contentType, "multipart", ""):
		return false
	}
	for len(body) > 0 {
		line := body
		if i := bytes.IndexByte(body, '\n'); i >= 0 {
			line, body = body[:i], body[i+1:]
		} else {
			body = nil
		}
		i := bytes.IndexByte(line, ':')
		if i < 0 {
			continue
		}
		lo, hi := trim(line, 0, i)
		if kindOf(line[lo:hi]) != kindContentType {
			continue
		}
		if at := skip(line, i+1, len(line)); isType(line[at:], "application", "sdp") {
			return true
		}
	}
	return false
}

// isType compares a media type with type and subtype, any subtype if that is empty.
func isType(s []byte, typ, subtype string) bool {
	i := bytes.IndexByte(s, '/')
	if i < 0 {
		return false
	}
	lo, hi := trim(s, 0, i)
	if !equalFold(s[lo:hi], typ) {
		return false
	}
	at := skip(s, i+1, len(s))
	return subtype == "" || equalFold(s[at:at+wordLen(s[at:])], subtype)
}
