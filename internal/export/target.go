package export

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Format is what a file is made of.
type Format string

// The formats.
const (
	Pcap   Format = "pcap"
	Pcapng Format = "pcapng"
	HEP    Format = "hep"
	Text   Format = "text"
	JSON   Format = "json"
)

// Formats lists them.
func Formats() []Format { return []Format{Pcap, Pcapng, HEP, Text, JSON} }

// stdout is the path that is standard output.
const stdout = "-"

// Target is a file to write, as users write it: "pcap:calls.pcap".
type Target struct {
	Format Format
	Path   string // "-" is standard output
}

// Accepts reports whether s is meant for [Parse], by its scheme.
func Accepts(s string) bool {
	scheme, _, ok := strings.Cut(s, ":")
	return ok && slices.Contains(Formats(), Format(scheme))
}

// Parse reads a target. What follows the colon is the file's name, whatever is in it.
func Parse(s string) (Target, error) {
	if !Accepts(s) {
		return Target{}, fmt.Errorf("file %q: use pcap:FILE, pcapng:FILE, hep:FILE, text:FILE or json:FILE", s)
	}
	format, path, _ := strings.Cut(s, ":")
	if rest, ok := strings.CutPrefix(path, "//"); ok && strings.HasPrefix(rest, "/") {
		path = rest // pcap:///var/calls.pcap
	}
	if path == "" {
		return Target{}, fmt.Errorf("file %q: no name, try %s:calls.%s or %s:-", s, format, format, format)
	}
	return Target{Format(format), path}, nil
}

// Stdout reports whether the target is standard output.
func (t Target) Stdout() bool { return t.Path == stdout }

// String is the target as [Parse] reads it.
func (t Target) String() string { return string(t.Format) + ":" + t.Path }

// ErrExists is returned by [Create] for a file that is there already.
var ErrExists = errors.New("is there already")
