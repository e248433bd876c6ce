package hep

import (
	"math"
	"math/bits"
	"time"
)

const (
	year2001    = 978307200
	microsInSec = 1e6
	daySeconds  = 24 * 60 * 60
)

// repairTime puts a time right that was sent in little endian, and carries
// microseconds that make up whole seconds.
func (d *Decoder) repairTime(p *Packet) {
	if p.set&FieldSec == 0 {
		return
	}
	if d.swapped(p.Sec, p.Usec) {
		p.Sec, p.Usec = bits.ReverseBytes32(p.Sec), bits.ReverseBytes32(p.Usec)
		p.Quirks |= QuirkByteOrder
	}
	carryUsec(p)
}

// carryUsec makes microseconds above 999999 count into the seconds.
func carryUsec(p *Packet) {
	if carry := p.Usec / microsInSec; carry > 0 && p.Sec <= math.MaxUint32-carry {
		p.Sec += carry
		p.Usec %= microsInSec
		p.Quirks |= QuirkUsec
	}
}

// swapped reports whether a time makes sense only in the other byte order:
// only there the microseconds are fewer than a million or, if that does not
// tell, only there the seconds are after 2001 and not in the future.
func (d *Decoder) swapped(sec, usec uint32) bool {
	otherUsec := bits.ReverseBytes32(usec)
	if (usec < microsInSec) != (otherUsec < microsInSec) {
		return otherUsec < microsInSec
	}
	return !d.plausible(sec) && d.plausible(bits.ReverseBytes32(sec))
}

// plausible reports whether sec is between 2001 and tomorrow. It asks the
// clock only for a time after the tomorrow that it knows.
func (d *Decoder) plausible(sec uint32) bool {
	if sec < year2001 {
		return false
	}
	if int64(sec) > d.tomorrow {
		d.tomorrow = time.Now().Unix() + daySeconds
	}
	return int64(sec) <= d.tomorrow
}
