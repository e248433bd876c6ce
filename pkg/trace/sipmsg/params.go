package sipmsg

// param finds the parameter of that name among those that begin at i. The first one counts,
// and a comma ends the search. What breaks the grammar on the way gives the flag odd.
//
//	;received=192.0.2.1 ; branch = z9hG4bK87 ;x="a;b"
func param(b []byte, i, hi int, name string, odd Flags) (Span, Flags) {
	var flags Flags
	for {
		i = skip(b, i, hi)
		if i == hi || b[i] == ',' {
			return Span{}, flags
		}
		if b[i] != ';' {
			flags |= odd
			for i < hi && b[i] != ';' && b[i] != ',' {
				i++
			}
			continue
		}
		at := skip(b, i+1, hi)
		end := paramWord(b, at, hi, true)
		if at == end {
			flags |= odd
		}
		value, quote := paramValue(b, end, hi)
		flags |= quote
		i = value.End()
		if equalFold(b[at:end], name) {
			return value, flags
		}
	}
}

// paramValue reads the value of the parameter whose name ends at i: a word, or
// a quoted string with its quotation marks. It is empty where there is no "=".
func paramValue(b []byte, i, hi int) (Span, Flags) {
	at := skip(b, i, hi)
	if at == hi || b[at] != '=' {
		return span(i, i), 0
	}
	at = skip(b, at+1, hi)
	if at < hi && b[at] == '"' {
		if end := closing(b, at, hi); end >= 0 {
			return span(at, end+1), 0
		}
		return span(at, paramWord(b, at, hi, false)), UnbalancedQuote
	}
	return span(at, paramWord(b, at, hi, false)), 0
}

// paramWord returns the end of the parameter's name, or of its value, that begins at i.
func paramWord(b []byte, i, hi int, name bool) int {
	for i < hi {
		switch b[i] {
		case ';', ',', ' ', '\t', '\r', '\n':
			return i
		case '=':
			if name {
				return i
			}
		}
		i++
	}
	return i
}
