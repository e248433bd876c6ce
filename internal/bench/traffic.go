package bench

import (
	"net/netip"
	"strconv"
	"time"
)

// Traffic is an endless stream of HEP version 3 packets as proxies send them:
// many calls at a time, each with a Call-ID, numbers, addresses and digests of
// its own, their messages mixed. The same seed makes the same traffic.
//
// A packet costs little to make, for it is a copy of one made before with the
// call's fields written over.
type Traffic struct {
	seed   uint64
	forms  [][]form // by site and message
	calls  []call   // those under way
	layout layout
	n      uint64 // packets made
}

// A call is what its messages have in common.
type call struct {
	number uint64
	begun  bool
	src    [4]byte
	fields []byte
}

// NewTraffic mixes the messages of so many calls. The agents are called node
// and a number.
func NewTraffic(seed uint64, calls int, node string) (*Traffic, error) {
	t := &Traffic{seed: mix(seed), layout: newLayout(fields()), calls: make([]call, calls)}
	for i, s := range sites() {
		var forms []form
		for _, l := range lines() {
			f, err := newForm(s, l, i, node, t.layout)
			if err != nil {
				return nil, err
			}
			forms = append(forms, f)
		}
		t.forms = append(t.forms, forms)
	}
	return t, nil
}

// Append appends the next packet to dst, captured at the time given.
func (t *Traffic) Append(dst []byte, at time.Time) []byte {
	width := uint64(len(t.calls))
	slot := t.n % width
	// Neighbours are at different messages of their calls.
	turn := t.n/width + slot%messages
	number, message := turn/messages*width+slot, turn%messages
	t.n++

	c := &t.calls[slot]
	if !c.begun || c.number != number {
		t.begin(c, number)
	}
	return t.forms[number%uint64(len(t.forms))][message].append(dst, c, at)
}

// begin makes c another call.
func (t *Traffic) begin(c *call, number uint64) {
	if c.fields == nil {
		c.fields = make([]byte, t.layout.size)
	}
	c.number, c.begun = number, true
	r := random{mix(t.seed ^ mix(number))}
	c.src = [4]byte{10, byte(100 + r.below(100)), byte(100 + r.below(100)), byte(100 + r.below(100))}
	at := 0
	for _, f := range t.layout.fields {
		f.fill(c.fields[at:at+f.width], c, &r)
		at += f.width
	}
}

// proxyAddr and peerAddr are the addresses of a site: its proxy, and the
// gateway behind it. They are meant for examples.
func proxyAddr(site int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(10 + site)}) }
func peerAddr(site int) netip.Addr  { return netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + site)}) }

// A field is a piece of text that is different in every call.
type field struct {
	name  string
	width int
	fill  func(b []byte, c *call, r *random)
}

// The kinds of fields.

func hexDigits(b []byte, _ *call, r *random) { r.from("0123456789abcdef", b) }

func digits(b []byte, _ *call, r *random) { r.from("0123456789", b) }

// callNumber is different for every call: mix gives no number twice.
func callNumber(b []byte, c *call, _ *random) { decimal(b, mix(c.number)) }

// port is an even UDP port of five digits.
func port(b []byte, _ *call, r *random) { decimal(b, 10000+2*r.below(25000)) }

// address is the caller's, of 14 characters: 10.1xx.1xx.1xx.
func address(b []byte, c *call, _ *random) {
	at := strconv.AppendUint(b[:0], uint64(c.src[0]), 10)
	for _, n := range c.src[1:] {
		at = strconv.AppendUint(append(at, '.'), uint64(n), 10)
	}
}

// decimal writes n with leading zeros.
func decimal(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// random is a small generator of numbers (splitmix64): a new one costs
// nothing, which every call begins with.
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	return mix(r.state)
}

func (r *random) below(n uint64) uint64 { return r.next() % n }

// from fills b with characters out of an alphabet of at most 16.
func (r *random) from(alphabet string, b []byte) {
	var bits uint64
	for i := range b {
		if i%12 == 0 {
			bits = r.next()
		}
		b[i] = alphabet[(bits&31)*uint64(len(alphabet))>>5]
		bits >>= 5
	}
}

// mix maps every number to another one that looks random.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
