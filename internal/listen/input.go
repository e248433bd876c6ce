package listen

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A Listener is a source with a socket, which it opened when it was made.
type Listener interface {
	trace.Source
	Addr() net.Addr
	Close() error
}

// Input says where to listen and how, as a URL does:
//
//	hep+udp://:9060?rcvbuf=64MiB
//	hep+tcp://10.0.0.1:9060?auth=KEY&conns=100
//	hep+udp://127.0.0.1:9062?trust=1
//	hep+tls://:9061?cert=tap.crt&key=tap.key&ca=agents.crt
//	siptrace+udp://:5066?require=0
type Input struct {
	Scheme string // "hep+udp", "hep+tcp", "hep+tls" or "siptrace+udp"
	Addr   string // host and port; the host may be empty
	HEP    HEPOptions
	TLS    TLSFiles   // of hep+tls only
	SIP    SIPOptions // of siptrace+udp only
}

// Guarded is the input behind a guard.
func (in Input) Guarded(g *Guard) Input {
	in.HEP.Guard, in.SIP.Guard = g, g
	return in
}

// An option of an input URL: its name, the schemes that know it, and how its
// value is read.
type option struct {
	name    string
	schemes []string
	set     func(in *Input, value string) error
}

// The schemes of inputs, with their default ports.
const (
	schemeUDP = "hep+udp"
	schemeTCP = "hep+tcp"
	schemeTLS = "hep+tls"
	schemeSIP = "siptrace+udp"

	portHEP      = "9060"
	portHEPTLS   = "9061"
	portSiptrace = "5066"
)

// Schemes lists the schemes of input URLs that ParseInput knows.
func Schemes() []string { return []string{schemeTCP, schemeTLS, schemeUDP, schemeSIP} }

// Accepts reports whether an input URL is one for ParseInput, by its scheme.
func Accepts(input string) bool {
	scheme, _, ok := strings.Cut(input, ":")
	return ok && slices.Contains(Schemes(), strings.ToLower(scheme))
}

// options is every option there is.
func options() []option {
	hep, streams, secure := []string{schemeTCP, schemeTLS, schemeUDP}, []string{schemeTCP, schemeTLS}, []string{schemeTLS}
	return []option{
		{"auth", hep, func(in *Input, v string) error { in.HEP.Auth = v; return nil }},
		{"ca", secure, func(in *Input, v string) error { in.TLS.CA = v; return nil }},
		{"cert", secure, func(in *Input, v string) error { in.TLS.Cert = v; return nil }},
		{"conns", streams, func(in *Input, v string) (err error) { in.HEP.MaxConns, err = count(v); return }},
		{"key", secure, func(in *Input, v string) error { in.TLS.Key = v; return nil }},
		{"rcvbuf", Schemes(), func(in *Input, v string) error { return in.setRcvBuf(v) }},
		{"require", []string{schemeSIP}, func(in *Input, v string) error { return in.setRequire(v) }},
		{"timeout", streams, func(in *Input, v string) (err error) { in.HEP.FrameTimeout, err = duration(v); return }},
		{"trust", hep, func(in *Input, v string) error { return in.setTrust(v) }},
	}
}

// setRcvBuf sets the size of the socket's buffer.
func (in *Input) setRcvBuf(v string) error {
	n, err := size(v)
	if in.Scheme == schemeSIP {
		in.SIP.RcvBuf = n
	} else {
		in.HEP.RcvBuf = n
	}
	return err
}

// setRequire says whether plain SIP must have X-Siptrace headers.
func (in *Input) setRequire(v string) error {
	if v != "0" && v != "1" {
		return fmt.Errorf("1 is wanted, or 0 for messages without x-siptrace headers, too")
	}
	in.SIP.Bare = v == "0"
	return nil
}

// setTrust says whether senders may mark events.
func (in *Input) setTrust(v string) error {
	if v != "0" && v != "1" {
		return fmt.Errorf("1 is wanted for senders that may choose tables and destinations, or 0")
	}
	in.HEP.Trust = v == "1"
	return nil
}

// ParseInput reads an input URL. The port may be left out: it is 9060, 9061
// for TLS, and 5066 for plain SIP. An error never repeats the value of an option, which may be a
// secret.
func ParseInput(s string) (Input, error) {
	bare, _, _ := strings.Cut(s, "?")
	u, err := url.Parse(s)
	if err != nil {
		return Input{}, fmt.Errorf("input %q is no URL, try hep+udp://:9060", bare)
	}
	in := Input{Scheme: u.Scheme}
	switch {
	case !slices.Contains(Schemes(), u.Scheme):
		return Input{}, fmt.Errorf("input %q: unknown scheme %q, known are %s", bare, u.Scheme, strings.Join(Schemes(), ", "))
	case u.Opaque != "" || !strings.Contains(bare, "://"):
		return Input{}, fmt.Errorf("input %q: no address, try %s://:%s", bare, u.Scheme, defaultPort(u.Scheme))
	case u.User != nil || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return Input{}, fmt.Errorf("input %q has more than a host, a port and options", bare)
	}
	if in.Addr, err = hostPort(u); err != nil {
		return Input{}, fmt.Errorf("input %q: %w", bare, err)
	}
	if err := in.setAll(u.RawQuery); err != nil {
		return Input{}, fmt.Errorf("input %q: %w", bare, err)
	}
	if in.Scheme == schemeTLS && (in.TLS.Cert == "" || in.TLS.Key == "") {
		return Input{}, fmt.Errorf("input %q: TLS needs ?cert=FILE&key=FILE", bare)
	}
	if err := in.safeToTrust(); err != nil {
		return Input{}, fmt.Errorf("input %q: %w", bare, err)
	}
	return in, nil
}

// hostPort is the address in u, with the port of its scheme if it has none.
func hostPort(u *url.URL) (string, error) {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("port %q is none", port)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

func defaultPort(scheme string) string {
	switch scheme {
	case schemeTLS:
		return portHEPTLS
	case schemeSIP:
		return portSiptrace
	}
	return portHEP
}

// setAll sets the options of a query.
func (in *Input) setAll(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("options are not of the form name=value&name=value")
	}
	for name, v := range values {
		if err := in.set(name, v); err != nil {
			return err
		}
	}
	return nil
}

func (in *Input) set(name string, values []string) error {
	var known []string
	for _, o := range options() {
		if !slices.Contains(o.schemes, in.Scheme) {
			continue
		}
		known = append(known, o.name)
		if o.name != name {
			continue
		}
		if len(values) != 1 || values[0] == "" {
			return fmt.Errorf("option %q needs one value", name)
		}
		if err := o.set(in, values[0]); err != nil {
			return fmt.Errorf("option %q: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("unknown option %q, known are %s", name, strings.Join(known, ", "))
}

// String is the URL without its secrets.
func (in Input) String() string {
	u := url.URL{Scheme: in.Scheme, Host: in.Addr}
	q := url.Values{}
	add := func(name, value string) {
		if value != "" && value != "0" && value != "0s" {
			q.Set(name, value)
		}
	}
	if in.HEP.Auth != "" {
		add("auth", "xxxxx")
	}
	add("rcvbuf", strconv.Itoa(max(in.HEP.RcvBuf, in.SIP.RcvBuf)))
	add("conns", strconv.Itoa(in.HEP.MaxConns))
	add("timeout", in.HEP.FrameTimeout.String())
	add("cert", in.TLS.Cert)
	add("key", in.TLS.Key)
	add("ca", in.TLS.CA)
	if in.HEP.Trust {
		q.Set("trust", "1")
	}
	if in.SIP.Bare {
		q.Set("require", "0")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Listen opens the socket that the input speaks of. Close what it returns.
func (in Input) Listen(reg prometheus.Registerer, log *slog.Logger) (Listener, error) {
	if err := in.safeToTrust(); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", in.Addr, err)
	}
	switch in.Scheme {
	case schemeUDP:
		return nilOr(ListenHEPUDP(in.Addr, in.HEP, reg, log))
	case schemeTCP:
		return nilOr(ListenHEPTCP(in.Addr, in.HEP, reg, log))
	case schemeTLS:
		return nilOr(ListenHEPTLS(in.Addr, in.TLS, in.HEP, reg, log))
	case schemeSIP:
		return nilOr(ListenSiptrace(in.Addr, in.SIP, reg, log))
	}
	return nil, fmt.Errorf("listen: unknown scheme %q, known are %s", in.Scheme, strings.Join(Schemes(), ", "))
}

// nilOr returns a nil Listener, not one that holds a nil pointer, on an error.
func nilOr[L Listener](l L, err error) (Listener, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// count reads a number above nought.
func count(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("a number from 1 up is wanted")
	}
	return int(n), nil
}

// size reads a number of bytes: "33554432", "32MiB".
func size(s string) (int, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<30 {
		return 0, fmt.Errorf("a size up to 1GiB is wanted, as 32MiB")
	}
	return int(n), nil
}

// duration reads a duration above nought.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("a duration is wanted, as 30s")
	}
	return d, nil
}
