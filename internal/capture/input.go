package capture

import (
	"fmt"
	"strings"
)

const schemePcap = "pcap"

// Schemes lists the schemes of input URLs that this package reads.
func Schemes() []string { return []string{schemePcap} }

// Accepts reports whether an input URL is one for ParsePcap, by its scheme.
func Accepts(input string) bool {
	scheme, _, ok := strings.Cut(input, ":")
	return ok && strings.EqualFold(scheme, schemePcap)
}

// ParsePcap reads an input URL, which is "pcap:" and the name of a file, or
// "pcap:-" for standard input. There are no options: a question mark is part
// of the name.
func ParsePcap(input string) (path string, err error) {
	if !Accepts(input) {
		return "", fmt.Errorf("input %q: unknown scheme, known is %s, as pcap:calls.pcapng", input, schemePcap)
	}
	path = input[len(schemePcap)+1:]
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		path = rest // pcap:///var/calls.pcap
	}
	if path == "" {
		return "", fmt.Errorf("input %q names no file, try pcap:calls.pcapng or pcap:-", input)
	}
	return path, nil
}
