package sipmsg

// via reads the first value of a Via field.
//
//	SIP/2.0/UDP pc33.example.com:5060;branch=z9hG4bK776asdhds, SIP/2.0/TCP …
func (m *Message) via(b []byte, lo, hi int) {
	i := m.protocol(b, lo, hi)
	host := skip(b, i, hi)
	i = hostEnd(b, host, hi)
	m.ViaHost = span(host, i)
	if m.ViaTransport.Empty() || m.ViaHost.Empty() {
		m.Flags |= OddVia
	}
	for i < hi && (b[i] == ':' || digit(b[i]) || blank(b[i])) { // the port
		i++
	}
	branch, flags := param(b, i, hi, "branch", OddVia)
	m.ViaBranch = branch
	m.Flags |= flags
}

// protocol passes "SIP/2.0/UDP", which may have white space round its slashes,
// and returns where it ends. A slash that is not there leaves the transport unread.
func (m *Message) protocol(b []byte, lo, hi int) int {
	const usual = "SIP/2.0/"
	i := lo
	if hi-lo > len(usual) && string(b[lo:lo+len(usual)]) == usual {
		i = skip(b, lo+len(usual), hi)
	} else {
		for _, want := range [...]string{"SIP", "2.0"} {
			end := viaWordEnd(b, i, hi)
			if !equalFold(b[i:end], want) {
				m.Flags |= OddVia
			}
			slash := skip(b, end, hi)
			if slash == hi || b[slash] != '/' {
				return slash
			}
			i = skip(b, slash+1, hi)
		}
	}
	end := viaWordEnd(b, i, hi)
	m.ViaTransport = span(i, end)
	return end
}

// viaWordEnd returns the end of the word of a Via that begins at i.
func viaWordEnd(b []byte, i, hi int) int {
	for i < hi && !blank(b[i]) && b[i] != '/' && b[i] != ';' && b[i] != ',' {
		i++
	}
	return i
}
