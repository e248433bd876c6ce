package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// setAuthority reads host and port.
func (d *Destination) setAuthority(s string) error {
	if strings.ContainsAny(s, `@/\#`) {
		return errors.New("want only a host and a port in front of the options")
	}
	host, port := s, ""
	hasPort := false
	if inner, ok := strings.CutPrefix(s, "["); ok {
		end := strings.IndexByte(inner, ']')
		if end < 0 {
			return errors.New("a [ without its ]")
		}
		rest := inner[end+1:]
		if port, hasPort = strings.CutPrefix(rest, ":"); rest != "" && !hasPort {
			return errors.New("want : and a port behind the ]")
		}
		host = inner[:end]
		if !strings.Contains(host, ":") {
			return errors.New("brackets are for IPv6 addresses")
		}
	} else {
		if strings.Count(s, ":") > 1 {
			return errors.New("an IPv6 address stands in brackets, as in [2001:db8::1]:9060")
		}
		host, port, hasPort = strings.Cut(s, ":")
	}
	var err error
	if d.Host, err = parseHost(host); err != nil {
		return err
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("port %q: want a number from 1 to 65535", port)
		}
		d.Port = uint16(n)
	}
	return nil
}

// parseHost reads an address or a name, without brackets, and returns it in
// the one form it has: names in lower case without a final dot, IPv4 addresses
// as such though written as IPv6.
func parseHost(s string) (string, error) {
	if s == "" {
		return "", errors.New("no host")
	}
	if strings.Contains(s, ":") {
		unescaped, err := url.PathUnescape(s) // a zone is written %25eth0
		if err != nil {
			unescaped = s
		}
		a, err := netip.ParseAddr(unescaped)
		if err != nil {
			return "", fmt.Errorf("%q is no IPv6 address", s)
		}
		return usable(a.Unmap())
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return usable(a)
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if len(name) > 253 {
		return "", errors.New("host name longer than 253 bytes")
	}
	label := ""
	for label = range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return "", fmt.Errorf("%q is neither an address nor a host name", s)
		}
	}
	// Resolvers take 127.1 and 0x7f000001 for addresses; nobody means them.
	if strings.Trim(label, "0123456789") == "" || strings.HasPrefix(label, "0x") {
		return "", fmt.Errorf("%q is neither an address nor a host name", s)
	}
	return name, nil
}

func usable(a netip.Addr) (string, error) {
	if a.IsUnspecified() {
		return "", fmt.Errorf("%s is no address to send to", a)
	}
	return a.String(), nil
}

// validLabel accepts letters, digits, hyphens inside, and the underscores that
// are in use.
func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
		if !ok {
			return false
		}
	}
	return true
}

// printable refuses what cannot be in a URL.
func printable(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("empty: %s", knownSchemes)
	case len(s) > maxDestination:
		return fmt.Errorf("longer than %d bytes", maxDestination)
	case strings.ContainsRune(s, '#'):
		return errors.New("a # begins nothing here: write %23")
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return fmt.Errorf("byte 0x%02x: escape it as %%%02x", c, c)
		}
	}
	return nil
}

// maxDestination is the longest destination that is read.
const maxDestination = 4096

// withoutSecrets is the start of a destination that may be wrong anywhere, up
// to where a secret may begin.
func withoutSecrets(s string) string {
	s, _, _ = strings.Cut(s, "?")
	s, _, _ = strings.Cut(s, "#")
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		scheme, _, ok := strings.Cut(s[:at], "//")
		if !ok {
			scheme, _, _ = strings.Cut(s[:at], ":")
			return shortened(scheme + ":***" + s[at:])
		}
		return shortened(scheme + "//***" + s[at:])
	}
	return shortened(s)
}

// shortened cuts what a stranger may have made long.
func shortened(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// escape writes an option's value so that it reads back the same, and leaves
// alone what needs no escaping there.
func escape(v string) string {
	return strings.NewReplacer("+", "%20", "%2A", "*", "%2B", "+", "%2F", "/", "%3A", ":", "%3D", "=", "%3F", "?",
		"%5B", "[", "%5D", "]").Replace(url.QueryEscape(v))
}
