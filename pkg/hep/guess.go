package hep

import "bytes"

// Guess says in a few words what the first bytes of a peer look like that does
// not speak HEP as it should, for a log. It is empty if they tell nothing.
func Guess(b []byte) string {
	if _, err := packetSize(b); err == ErrLength {
		return "HEP3 with a bad length"
	}
	for _, g := range [...]struct{ prefix, what string }{
		{"HEP3", "HEP3"}, {"EEP3", "EEP3"}, {"EEP1", "EEP1, the draft of 2013"},
		{"\x16\x03", "TLS"}, {"\x1f\x8b", "gzip"}, {"\x78\x9c", "zlib"},
		{"PROXY ", "the PROXY protocol"}, {"\r\n\r\n\x00\r\nQUIT\n", "the PROXY protocol"},
		{"OPTIONS sip", "SIP"}, {"SIP/2.0 ", "SIP"}, {"INVITE ", "SIP"}, {"REGISTER ", "SIP"},
		{"GET ", "HTTP"}, {"POST ", "HTTP"}, {"PUT ", "HTTP"}, {"HEAD ", "HTTP"},
		{"OPTIONS ", "HTTP"}, {"HTTP/", "HTTP"}, {"PRI * ", "HTTP/2"},
	} {
		if bytes.HasPrefix(b, []byte(g.prefix)) {
			return g.what
		}
	}
	return guessBinary(b)
}

// guessBinary knows the peers that no fixed text gives away.
func guessBinary(b []byte) string {
	switch {
	case len(b) >= 8 && (string(b[4:8]) == "HEP3" || string(b[4:8]) == "EEP3"):
		return "HEP3 behind a length of 4 bytes"
	case len(b) >= 3 && (b[0] == 1 || b[0] == 2) && (b[2] == FamilyINET || isINET6(b[2])):
		return "HEP" + string('0'+rune(b[0]))
	case len(b) >= 8 && b[0]&0xc0 == 0 && string(b[4:8]) == "\x21\x12\xa4\x42":
		return "STUN"
	case len(b) >= 2 && b[0]&0xc0 == 0x80:
		return "RTP or RTCP"
	case len(b) >= 1 && b[0] == 0x08:
		return "protobuf"
	}
	return ""
}
