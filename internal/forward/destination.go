package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Scheme says what is spoken to a destination, and over what.
type Scheme string

// The schemes of destinations.
const (
	HEPUDP Scheme = "hep+udp"
	HEPTCP Scheme = "hep+tcp"
	HEPTLS Scheme = "hep+tls"
	SIPUDP Scheme = "sip+udp"
)

// schemes are all of them, with their default ports.
var schemes = []struct {
	scheme Scheme
	port   uint16
}{{HEPUDP, 9060}, {HEPTCP, 9060}, {HEPTLS, 9061}, {SIPUDP, 5060}}

// knownSchemes is the end of an error.
const knownSchemes = "known are hep+udp://, hep+tcp://, hep+tls://, sip+udp:// and sip:"

// hep reports whether HEP is spoken.
func (s Scheme) hep() bool { return s != SIPUDP }

// stream reports whether it is spoken over a connection.
func (s Scheme) stream() bool { return s == HEPTCP || s == HEPTLS }

// network is what package net calls the transport.
func (s Scheme) network() string {
	if s.stream() {
		return "tcp"
	}
	return "udp"
}

// Destination is where events go, and how. [ParseDestination] makes one.
type Destination struct {
	Scheme Scheme
	Host   string // a name or an address; IPv6 without brackets
	Port   uint16

	Version      uint8  // of HEP: 1, 2 or 3
	CaptureID    uint32 // in place of the event's, if SetCaptureID
	SetCaptureID bool
	Auth         Secret // HEP authentication key; empty is none
	Node         string // in place of the event's capture agent name; empty is the event's
	NoMark       bool   // HEP version 3: without the chunk that says which fleet has sent the packet

	Taps          bool           // send even where a tap of this fleet seems to listen
	From          netip.AddrPort // local address; zero is the system's choice
	IgnoreRefused bool           // UDP: go on when the far side says that nobody listens
	Fallback      *Destination   // takes what is too long for a datagram; nil is none
	XHeaders      bool           // plain SIP: add the X-Siptrace headers
	TLS           TLSOptions
}

// TLSOptions are a destination's files and names for TLS.
type TLSOptions struct {
	CA, Cert, Key string // PEM files; no CA is the system's
	ServerName    string // expected in the certificate; empty is the host
	Insecure      bool   // believe any certificate
}

// Secret is a text that is printed as ***.
type Secret string

// String hides the secret; string(s) is the secret itself.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// GoString hides the secret.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// ParseDestination reads a destination as users write it:
//
//	hep+udp://host:9060?version=1|2|3&capture-id=N&auth=KEY&node=NAME&mark=0&from=udp:10.1.1.2:5000&refused=hold|ignore&fallback=hep+tcp://…
//	hep+tcp://host:9060?capture-id=N&auth=KEY&node=NAME&from=tcp:10.1.1.2
//	hep+tls://host:9061?…&ca=FILE&cert=FILE&key=FILE&server-name=NAME&insecure=true
//	sip+udp://host:5060?xheaders=1&taps=1&from=…&refused=…
//	sip:10.1.1.1:5888;transport=udp
//
// The last is how siptrace's duplicate_uri is written, and means plain SIP over
// UDP. Ports may be left out. IPv6 addresses stand in brackets. In values,
// & # and % are escaped as in a URL; a + stands for itself.
//
// HEP versions 1 and 2 do not say where a packet ends, so they go over UDP only.
// Version 2 has room for the lower 16 bits of a capture id, version 1 for none.
// refused=ignore is for a port on which nobody listens and somebody sniffs.
// mark=0 leaves out the chunk by which a tap of this fleet knows a packet of
// its own, and taps=1 sends without a mark even where such a tap seems to listen.
//
// An error shows neither the options' values nor a password.
func ParseDestination(s string) (Destination, error) {
	d, err := parseDestination(s)
	if err != nil {
		return Destination{}, fmt.Errorf("destination %q: %w", withoutSecrets(s), err)
	}
	return d, nil
}

func parseDestination(s string) (Destination, error) {
	if err := printable(s); err != nil {
		return Destination{}, err
	}
	scheme, rest, ok := strings.Cut(s, ":")
	scheme = strings.ToLower(scheme)
	if !ok {
		return Destination{}, fmt.Errorf("no scheme: %s", knownSchemes)
	}
	if rest, ok = strings.CutPrefix(rest, "//"); !ok {
		if scheme != "sip" {
			return Destination{}, fmt.Errorf("unknown form %q: %s", scheme+":", knownSchemes)
		}
		return parseSIP(rest)
	}
	d, ok := withScheme(Scheme(scheme))
	if !ok {
		return Destination{}, fmt.Errorf("unknown scheme %q: %s", scheme, knownSchemes)
	}
	authority, query, _ := strings.Cut(rest, "?")
	if err := d.setAuthority(strings.TrimSuffix(authority, "/")); err != nil {
		return Destination{}, err
	}
	if err := d.setOptions(query); err != nil {
		return Destination{}, err
	}
	return d, d.check()
}

// parseSIP reads what comes behind "sip:".
func parseSIP(s string) (Destination, error) {
	d, _ := withScheme(SIPUDP)
	rest, query, _ := strings.Cut(s, "?")
	authority, params, more := strings.Cut(rest, ";")
	for more {
		var param string
		param, params, more = strings.Cut(params, ";")
		name, value, _ := strings.Cut(param, "=")
		switch {
		case !strings.EqualFold(name, "transport"):
			return Destination{}, fmt.Errorf("unknown parameter %q: known is transport", name)
		case !strings.EqualFold(value, "udp"):
			return Destination{}, fmt.Errorf("transport %q: plain SIP goes over udp only; a stream wants hep+tcp:// or hep+tls://", value)
		}
	}
	if err := d.setAuthority(authority); err != nil {
		return Destination{}, err
	}
	if err := d.setOptions(query); err != nil {
		return Destination{}, err
	}
	return d, d.check()
}

// withScheme is a destination with the defaults of its scheme.
func withScheme(scheme Scheme) (Destination, bool) {
	for _, s := range schemes {
		if s.scheme == scheme {
			d := Destination{Scheme: scheme, Port: s.port}
			if scheme.hep() {
				d.Version = 3
			}
			return d, true
		}
	}
	return Destination{}, false
}

// check looks at what options say together.
func (d *Destination) check() error {
	if d.Version == 1 || d.Version == 2 {
		switch {
		case d.Scheme.stream():
			return fmt.Errorf("version %d over a stream: packets of versions 1 and 2 do not say where they end, so they go over hep+udp:// only", d.Version)
		case d.Auth != "" || d.Node != "":
			return fmt.Errorf("version %d has no room for auth and node: version 3 has", d.Version)
		case d.Version == 1 && d.SetCaptureID:
			return fmt.Errorf("version 1 has no room for capture-id: versions 2 and 3 have")
		}
	}
	if (d.TLS.Cert == "") != (d.TLS.Key == "") {
		return fmt.Errorf("cert and key belong together")
	}
	if !d.From.IsValid() {
		return nil
	}
	if d.Scheme.stream() && d.From.Port() != 0 {
		return fmt.Errorf("from has a port: a connection is made anew from whatever port is free")
	}
	if a, err := netip.ParseAddr(d.Host); err == nil && a.Is4() != d.From.Addr().Is4() {
		return fmt.Errorf("from is of another address family than the host")
	}
	return nil
}

// HostPort is the host and the port, as package net takes them.
func (d Destination) HostPort() string {
	return net.JoinHostPort(d.Host, strconv.Itoa(int(d.Port)))
}

// String is the destination as [ParseDestination] reads it, with *** in place
// of every secret.
func (d Destination) String() string {
	var b strings.Builder
	b.WriteString(string(d.Scheme) + "://" + d.HostPort())
	sep := byte('?')
	for _, o := range options() {
		v := ""
		if slices.Contains(o.schemes, d.Scheme) {
			v = o.get(&d)
		}
		if v != "" {
			b.WriteByte(sep)
			b.WriteString(o.name + "=" + escape(v))
			sep = '&'
		}
	}
	return b.String()
}

// Redacted is String, for those who want to see at the point of use that
// nothing secret is told.
func (d Destination) Redacted() string { return d.String() }

// GoString hides secrets like String.
func (d Destination) GoString() string { return fmt.Sprintf("forward.Destination(%q)", d.String()) }

// LogValue logs a destination without its secrets.
func (d Destination) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText is String: a configuration that is printed shows no secret.
func (d Destination) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is [ParseDestination].
func (d *Destination) UnmarshalText(text []byte) error {
	parsed, err := ParseDestination(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// Name identifies the destination for as long as events for it may wait: it is
// fit for a durable consumer and for a metric label. It tells host and port,
// and a digest tells apart what differs otherwise: scheme, HEP version, capture
// id, node, local address, X-Siptrace headers. Keys, certificates, and what to
// do when something goes wrong are not in it: they may change without every
// event being sent again.
func (d Destination) Name() string {
	what := "hep"
	if !d.Scheme.hep() {
		what = "sip"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d %t %d %q %s %t", d.Scheme, d.HostPort(),
		d.Version, d.CaptureID, d.SetCaptureID, d.Port, d.Node, d.From, d.XHeaders))
	host := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, d.Host[:min(len(d.Host), maxNameHost)])
	return fmt.Sprintf("%s-%s-%d-%s", what, host, d.Port, hex.EncodeToString(sum[:4]))
}

// maxNameHost is how much of a host's name goes into Name.
const maxNameHost = 64
