package listen

import (
	"bytes"
	"net/netip"
	"time"
	"unsafe"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// xheaders is what the X-Siptrace header fields of a plain-SIP duplicate say
// of the message:
//
//	X-Siptrace-Fromip: udp:192.0.2.1:5060
//	X-Siptrace-Toip: udp:[2001:db8::1]:5060
//	X-Siptrace-Time: SECONDS MICROSECONDS
//	X-Siptrace-Method: INVITE
//	X-Siptrace-Dir: in
//
// They may come in any order and anywhere in the header, in any case, and not
// all of them need be there. Of fields that come twice the first counts: it is
// the first node's. The method is the message's own, and is not looked at.
type xheaders struct {
	found xfield // fields that are there
	good  xfield // and can be read

	transport trace.Transport // the destination's, or else the source's
	src, dst  netip.AddrPort  // zero for "any", which stands for an unknown address
	time      time.Time
	direction trace.Direction
}

// xfield is a set of X-Siptrace header fields.
type xfield uint8

const (
	xFrom xfield = 1 << iota
	xTo
	xTime
	xMethod
	xDir
)

// addresses reports whether the fields say from where to where.
func (x *xheaders) addresses() bool { return x.good&(xFrom|xTo) == xFrom|xTo }

// cut reads the X-Siptrace header fields of msg, and takes their lines out of
// it. The message moves together in its place; not another byte is changed.
func (x *xheaders) cut(msg []byte) []byte {
	*x = xheaders{}
	at := 0
	for at < len(msg) && (msg[at] == '\r' || msg[at] == '\n' || msg[at] == 0) {
		at++ // line ends in front of a message end no header
	}
	kept := at // where what is kept goes to
	gone := false
	for at < len(msg) {
		end, next := lineEnd(msg, at)
		if end == at {
			break // the empty line
		}
		line := msg[at:end]
		if blank := line[0] == ' ' || line[0] == '\t'; !blank {
			gone = x.field(line)
		} // else it goes the way of the line that it continues
		if !gone {
			kept += move(msg, kept, at, next)
		}
		at = next
	}
	kept += move(msg, kept, at, len(msg))
	return msg[:kept]
}

// move moves b[lo:hi] down to to, and returns how many bytes that are.
func move(b []byte, to, lo, hi int) int {
	if to != lo {
		copy(b[to:], b[lo:hi])
	}
	return hi - lo
}

// lineEnd returns where the text of the line at i ends, and where the next line
// begins. A line ends in CRLF, LF alone, CR alone or CR CR LF.
func lineEnd(b []byte, i int) (end, next int) {
	lf := len(b)
	if n := bytes.IndexByte(b[i:], '\n'); n >= 0 {
		lf = i + n
	}
	cr := bytes.IndexByte(b[i:lf], '\r')
	if cr < 0 {
		return lf, min(lf+1, len(b))
	}
	end = i + cr
	run := end + 1
	for run < len(b) && b[run] == '\r' {
		run++
	}
	switch {
	case run == len(b):
		return end, run
	case b[run] == '\n':
		return end, run + 1
	}
	return end, end + 1
}

// xPrefix begins the names of the five fields.
const xPrefix = "x-siptrace-"

// field reads a header line if it is one of the five, and reports whether it is.
func (x *xheaders) field(line []byte) bool {
	if len(line) < len(xPrefix) || !isFold(line[:len(xPrefix)], xPrefix) {
		return false
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return false
	}
	f := xfieldOf(bytes.TrimRight(line[len(xPrefix):colon], " \t"))
	if f == 0 {
		return false
	}
	if x.found&f == 0 {
		x.found |= f
		if x.set(f, bytes.Trim(line[colon+1:], " \t")) {
			x.good |= f
		}
	}
	return true
}

// xfieldOf tells a field by the rest of its name; 0 is none of the five.
func xfieldOf(name []byte) xfield {
	switch {
	case isFold(name, "fromip"):
		return xFrom
	case isFold(name, "toip"):
		return xTo
	case isFold(name, "time"):
		return xTime
	case isFold(name, "method"):
		return xMethod
	case isFold(name, "dir"):
		return xDir
	}
	return 0
}

// set takes the value of a field, and reports whether it can be read.
func (x *xheaders) set(f xfield, value []byte) (ok bool) {
	switch f {
	case xFrom:
		var t trace.Transport
		t, x.src, ok = endpoint(value)
		if x.transport == trace.TransportUnknown {
			x.transport = t
		}
	case xTo:
		var t trace.Transport
		if t, x.dst, ok = endpoint(value); t != trace.TransportUnknown {
			x.transport = t
		}
	case xTime:
		x.time, ok = secondsMicros(value)
	case xMethod:
		ok = len(value) > 0
	case xDir:
		x.direction, ok = trace.ParseDirection(text(value))
		ok = ok && x.direction != trace.DirectionUnknown
	}
	return ok
}

// endpoint reads proto:ip:port. An IPv6 address may stand without brackets, as
// Kamailio writes it in places: the port is behind the last colon.
func endpoint(b []byte) (t trace.Transport, a netip.AddrPort, ok bool) {
	proto, rest, found := bytes.Cut(b, []byte{':'})
	last := bytes.LastIndexByte(rest, ':')
	if !found || last < 0 {
		return t, a, false
	}
	if isFold(proto, "any") {
		return t, a, true
	}
	if t, ok = trace.ParseTransport(text(proto)); !ok || t == trace.TransportUnknown {
		return t, a, false
	}
	host, port := rest[:last], rest[last+1:]
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	n, ok := decimal(port, 65535)
	addr, err := netip.ParseAddr(text(host))
	if !ok || err != nil || addr.Zone() != "" {
		return trace.TransportUnknown, a, false
	}
	return t, netip.AddrPortFrom(addr.Unmap(), uint16(n)), true
}

// secondsMicros reads "1795374357 432434". "0 0" is what Kamailio's core engine
// writes, which does not know the time here.
func secondsMicros(b []byte) (time.Time, bool) {
	first, second, _ := bytes.Cut(b, []byte{' '})
	sec, ok1 := decimal(first, 1<<32-1)
	usec, ok2 := decimal(bytes.TrimLeft(second, " "), 999_999)
	if !ok1 || !ok2 || sec == 0 {
		return time.Time{}, false
	}
	return time.Unix(int64(sec), int64(usec)*1000), true
}

// decimal reads a number up to most.
func decimal(b []byte, most uint64) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n > most {
			return 0, false
		}
	}
	return n, len(b) > 0
}

// isFold compares b with a text in lower case, without regard to case.
func isFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// text is b as a string for the length of a call that keeps neither it nor its
// error: a copy would cost an allocation for every message.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
