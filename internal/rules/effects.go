package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// The bounds of a rule, and of what rules together may do to one event: an
// event and its routing share the 64 KiB of a packet.
const (
	maxValues       = 1000 // of one selector
	maxHeaders      = 16
	maxUsers        = 32
	maxDestinations = 16
	maxDestination  = 512 // bytes
	maxName         = 63
	maxTable        = 40
	maxWords        = 500 // bytes of who and why
)

// CheckName reports why a name is not fit for a rule.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		ok = ok && (letter || i > 0 && (c == '-' || c == '_'))
	}
	if !ok {
		return &FieldError{Field: "name", Value: name, Err: fmt.Errorf("is not a letter or digit and up to %d letters, digits, - and _", maxName-1)}
	}
	return nil
}

// checkTable reports why a table is not fit to be written to. The names that
// pass are those that the writer accepts.
func checkTable(name string) error {
	ok := name != "" && len(name) <= maxTable && 'a' <= name[0] && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_')
	}
	switch {
	case !ok:
		return fmt.Errorf("is not a small letter and up to %d small letters, digits and underscores", maxTable-1)
	case strings.HasSuffix(name, "_text"), strings.HasPrefix(name, "pg_"), strings.HasPrefix(name, "sqlite_"), partition(name):
		return errors.New("is a name kept for views, partitions and the database itself")
	}
	return nil
}

// partition reports whether name ends as those of partitions do, in _pYYYYMMDD
// or _pYYYYMMDD_HH.
func partition(name string) bool {
	shape := strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return '0'
		}
		return r
	}, name)
	return strings.HasSuffix(shape, "_p00000000") || strings.HasSuffix(shape, "_p00000000_00")
}

// checkUser reports why a text is not fit for the column of traced users.
func checkUser(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	return printable(s, maxText)
}

var errScheme = errors.New("is none of hep+udp://HOST:PORT, hep+tcp://HOST:PORT, hep+tls://HOST:PORT, sip+udp://HOST:PORT and sip:HOST:PORT")

// remoteOptions are what a destination that comes from afar may say. Files and
// local addresses are for the machine's owner.
const remoteOptions = " version capture-id auth node refused xheaders server-name insecure transport "

// checkDestination reports why a URI is not fit to get copies. hep-forwarder
// looks more closely, and at who is allowed.
func checkDestination(s string) error {
	if len(s) > maxDestination {
		return fmt.Errorf("is longer than %d bytes", maxDestination)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '#' || s[i] == '\\' {
			return fmt.Errorf("has the byte 0x%02x, which no URI has", s[i])
		}
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return errScheme
	}
	sep := "?"
	switch strings.ToLower(scheme) {
	case "hep+udp", "hep+tcp", "hep+tls", "sip+udp":
		if rest, ok = strings.CutPrefix(rest, "//"); !ok {
			return errScheme
		}
	case "sip":
		if rest, ok = strings.CutPrefix(rest, "//"); ok {
			return errScheme
		}
		sep = ";?"
	default:
		return errScheme
	}
	host, options := rest, ""
	if i := strings.IndexAny(rest, sep); i >= 0 {
		host, options = rest[:i], rest[i+1:]
	}
	if err := checkAuthority(strings.TrimSuffix(host, "/")); err != nil {
		return err
	}
	for option := range strings.FieldsFuncSeq(options, func(r rune) bool { return strings.ContainsRune(sep+"&", r) }) {
		name, _, _ := strings.Cut(option, "=")
		if !strings.Contains(remoteOptions, " "+strings.ToLower(name)+" ") {
			return fmt.Errorf("has an option %q that a rule must not set; it may set%s", shortened(name), strings.TrimRight(remoteOptions, " "))
		}
	}
	return nil
}

// checkAuthority reports why s is no host with or without a port.
func checkAuthority(s string) error {
	if strings.ContainsRune(s, '@') {
		return errors.New("has an '@': there is nobody to log in as")
	}
	host, port := s, ""
	hasPort := false
	if inner, ok := strings.CutPrefix(s, "["); ok {
		end := strings.IndexByte(inner, ']')
		if end < 0 {
			return errors.New("has a [ without its ]")
		}
		if a, err := netip.ParseAddr(inner[:end]); err != nil || !a.Is6() {
			return fmt.Errorf("has no IPv6 address between [ and ]")
		}
		host, port = "ipv6", inner[end+1:]
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && inner[end+1:] != "" {
			return errors.New("has something else than :PORT behind the ]")
		}
	} else {
		host, port, hasPort = strings.Cut(s, ":")
	}
	if host == "" {
		return errors.New("names no host")
	}
	for i := range len(host) {
		c := host[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return fmt.Errorf("has a host with a %q in it", c)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
		return fmt.Errorf("has the port %q, which is no number from 1 to 65535", shortened(port))
	}
	return nil
}

// checkEffects reports all that is wrong with what r does.
func checkEffects(r *trace.Rule) []error {
	var errs []error
	wrong := func(field, value string, err error) {
		if err != nil {
			errs = append(errs, &FieldError{Field: field, Value: value, Err: err})
		}
	}
	if r.Table != "" {
		wrong("table", r.Table, checkTable(r.Table))
	}
	errs = append(errs, checkList("users", r.Users, maxUsers, checkUser)...)
	errs = append(errs, checkList("users_from", r.UsersFrom, 3, checkUsersFrom)...)
	for i, uri := range r.Destinations {
		if err := checkDestination(uri); err != nil {
			errs = append(errs, fieldError("destinations", i, shownURI(uri), err))
		}
	}
	errs = append(errs, checkCount("destinations", len(r.Destinations), maxDestinations)...)
	targeted := len(r.Users) > 0 || len(r.UsersFrom) > 0
	switch {
	case r.Drop && (r.Table != "" || targeted || len(r.Destinations) > 0 || r.NoStore || r.NoDuplicate):
		wrong("drop", "", errors.New("leaves nothing to store or to send: a rule that drops does nothing else"))
	case r.NoStore && (r.Table != "" || targeted):
		wrong("no_store", "", errors.New("leaves nothing for table and users"))
	case r.NoDuplicate && len(r.Destinations) > 0:
		wrong("no_duplicate", "", errors.New("leaves nothing for destinations"))
	}
	return errs
}

func checkList(field string, values []string, most int, check func(string) error) []error {
	var errs []error
	for i, v := range values {
		if err := check(v); err != nil {
			errs = append(errs, fieldError(field, i, v, err))
		}
	}
	return append(errs, checkCount(field, len(values), most)...)
}

func checkCount(field string, n, most int) []error {
	if n <= most {
		return nil
	}
	return []error{&FieldError{Field: field, Err: fmt.Errorf("has %d values, more than %d", n, most)}}
}

func checkUsersFrom(s string) error {
	switch s {
	case trace.UserFrom, trace.UserTo, trace.UserRURI:
		return nil
	}
	return errors.New("is none of from, to and ruri")
}

// checkWords reports what is wrong with who and why, which people read.
func checkWords(field, s string) error {
	if err := printable(s, maxWords); err != nil {
		return &FieldError{Field: field, Value: s, Err: err}
	}
	return nil
}

// shownURI is as much of a URI as holds no secret.
func shownURI(s string) string {
	s, _, _ = strings.Cut(s, "?")
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		scheme, _, _ := strings.Cut(s, ":")
		return scheme + ":***" + s[i:]
	}
	return s
}
