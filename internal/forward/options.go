package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// option is one option of a destination's query. get returns the text that set
// reads, "" for the default, and hides secrets.
type option struct {
	name    string
	schemes []Scheme
	set     func(d *Destination, v string) error
	get     func(d *Destination) string
}

// options are all of them, in the order in which String writes them.
func options() []option {
	return []option{
		{
			"version", []Scheme{HEPUDP, HEPTCP, HEPTLS},
			func(d *Destination, v string) error {
				if v != "1" && v != "2" && v != "3" {
					return errors.New("want 1, 2 or 3")
				}
				d.Version = v[0] - '0'
				return nil
			},
			func(d *Destination) string {
				if d.Version == 3 {
					return ""
				}
				return strconv.Itoa(int(d.Version))
			},
		},
		{
			"capture-id", []Scheme{HEPUDP, HEPTCP, HEPTLS},
			func(d *Destination, v string) error {
				n, err := strconv.ParseUint(v, 10, 32)
				if err != nil {
					return errors.New("want a number from 0 to 4294967295")
				}
				d.CaptureID, d.SetCaptureID = uint32(n), true
				return nil
			},
			func(d *Destination) string {
				if !d.SetCaptureID {
					return ""
				}
				return strconv.FormatUint(uint64(d.CaptureID), 10)
			},
		},
		{
			"auth", []Scheme{HEPUDP, HEPTCP, HEPTLS},
			func(d *Destination, v string) error { return setText((*string)(&d.Auth), v) },
			func(d *Destination) string { return d.Auth.String() },
		},
		{
			"node", []Scheme{HEPUDP, HEPTCP, HEPTLS},
			func(d *Destination, v string) error { return setText(&d.Node, v) },
			func(d *Destination) string { return d.Node },
		},
		{
			"mark", []Scheme{HEPUDP, HEPTCP, HEPTLS},
			func(d *Destination, v string) error {
				var on bool
				err := setBool(&on, v)
				d.NoMark = !on
				return err
			},
			func(d *Destination) string {
				if d.NoMark {
					return "0"
				}
				return ""
			},
		},
		{
			"taps", []Scheme{HEPUDP, HEPTCP, HEPTLS, SIPUDP},
			func(d *Destination, v string) error { return setBool(&d.Taps, v) },
			func(d *Destination) string { return boolText(d.Taps) },
		},
		{
			"xheaders", []Scheme{SIPUDP},
			func(d *Destination, v string) error { return setBool(&d.XHeaders, v) },
			func(d *Destination) string { return boolText(d.XHeaders) },
		},
		{
			"from", []Scheme{HEPUDP, HEPTCP, HEPTLS, SIPUDP},
			func(d *Destination, v string) (err error) {
				d.From, err = parseFrom(v, d.Scheme.network())
				return err
			},
			func(d *Destination) string { return fromText(d) },
		},
		{
			"refused", []Scheme{HEPUDP, SIPUDP},
			func(d *Destination, v string) error {
				if v != "hold" && v != "ignore" {
					return errors.New("want hold or ignore")
				}
				d.IgnoreRefused = v == "ignore"
				return nil
			},
			func(d *Destination) string {
				if d.IgnoreRefused {
					return "ignore"
				}
				return ""
			},
		},
		{
			"ca", []Scheme{HEPTLS},
			func(d *Destination, v string) error { return setText(&d.TLS.CA, v) },
			func(d *Destination) string { return d.TLS.CA },
		},
		{
			"cert", []Scheme{HEPTLS},
			func(d *Destination, v string) error { return setText(&d.TLS.Cert, v) },
			func(d *Destination) string { return d.TLS.Cert },
		},
		{
			"key", []Scheme{HEPTLS},
			func(d *Destination, v string) error { return setText(&d.TLS.Key, v) },
			func(d *Destination) string { return d.TLS.Key },
		},
		{
			"server-name", []Scheme{HEPTLS},
			func(d *Destination, v string) (err error) {
				d.TLS.ServerName, err = parseHost(v)
				return err
			},
			func(d *Destination) string { return d.TLS.ServerName },
		},
		{
			"insecure", []Scheme{HEPTLS},
			func(d *Destination, v string) error { return setBool(&d.TLS.Insecure, v) },
			func(d *Destination) string { return boolText(d.TLS.Insecure) },
		},
		{
			"fallback", []Scheme{HEPUDP},
			func(d *Destination, v string) error {
				f, err := ParseDestination(v)
				if err == nil {
					err = f.canBeFallback()
				}
				d.Fallback = &f
				return err
			},
			func(d *Destination) string {
				if d.Fallback == nil {
					return ""
				}
				return d.Fallback.String()
			},
		},
	}
}

// setOptions reads a query.
func (d *Destination) setOptions(query string) error {
	var seen []string
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		o, ok := optionOf(name, d.Scheme)
		if !ok {
			return unknownOption(pair, d.Scheme, seen)
		}
		if slices.Contains(seen, name) {
			return fmt.Errorf("option %s is there twice", name)
		}
		seen = append(seen, name)
		value, err := url.PathUnescape(value)
		if err != nil {
			return fmt.Errorf("option %s: a %% that escapes nothing: write %%25", name)
		}
		if value == "" {
			return fmt.Errorf("option %s has no value", name)
		}
		if err := o.set(d, value); err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	}
	return nil
}

// optionOf finds an option that a scheme knows.
func optionOf(name string, scheme Scheme) (option, bool) {
	for _, o := range options() {
		if o.name == name && slices.Contains(o.schemes, scheme) {
			return o, true
		}
	}
	return option{}, false
}

// unknownOption says what would have been known. It repeats what was written
// only where that cannot be the rest of a key that has an & in it.
func unknownOption(pair string, scheme Scheme, seen []string) error {
	var known []string
	for _, o := range options() {
		if slices.Contains(o.schemes, scheme) {
			known = append(known, o.name)
		}
	}
	name, _, ok := strings.Cut(pair, "=")
	if ok && !slices.Contains(seen, "auth") {
		return fmt.Errorf("unknown option %q: %s:// knows %s", shortened(name), scheme, strings.Join(known, ", "))
	}
	return fmt.Errorf("unknown option in place %d: %s:// knows %s; an & inside a value is written %%26",
		len(seen)+1, scheme, strings.Join(known, ", "))
}

// canBeFallback reports why a destination cannot take what is too long for UDP.
func (d *Destination) canBeFallback() error {
	if !d.Scheme.stream() {
		return errors.New("want hep+tcp:// or hep+tls://")
	}
	return nil
}

// maxText is the longest text of an option: it goes into every packet.
const maxText = 255

func setText(to *string, v string) error {
	if len(v) > maxText {
		return fmt.Errorf("longer than %d bytes", maxText)
	}
	for _, c := range []byte(v) {
		if c < ' ' || c == 0x7f {
			return errors.New("has a control character")
		}
	}
	*to = v
	return nil
}

func setBool(to *bool, v string) error {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return errors.New("want true or false")
	}
	*to = b
	return nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return ""
}

// parseFrom reads a local address as siptrace writes it, udp:10.1.1.2:5000,
// with or without the protocol, and with or without the port.
func parseFrom(v, network string) (netip.AddrPort, error) {
	bad := fmt.Errorf("want %s:ADDRESS:PORT or ADDRESS, with IPv6 in brackets", network)
	for _, proto := range []string{"udp:", "tcp:", "tls:"} {
		rest, ok := strings.CutPrefix(v, proto)
		if ok && strings.TrimSuffix(proto, ":") != network {
			return netip.AddrPort{}, bad
		}
		if ok {
			v = rest
			break
		}
	}
	if ap, err := netip.ParseAddrPort(v); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	if strings.HasPrefix(v, "[") && strings.HasSuffix(v, "]") {
		v = v[1 : len(v)-1]
	}
	a, err := netip.ParseAddr(v)
	if err != nil {
		return netip.AddrPort{}, bad
	}
	return netip.AddrPortFrom(a.Unmap(), 0), nil
}

func fromText(d *Destination) string {
	if !d.From.IsValid() {
		return ""
	}
	if d.From.Port() != 0 {
		return d.Scheme.network() + ":" + d.From.String()
	}
	return d.From.Addr().String()
}
