package hep

import "time"

// deadline keeps the read deadline of a connection packet by packet.
type deadline struct {
	conn    interface{ SetReadDeadline(time.Time) error }
	d       time.Duration
	set     bool // the connection has one
	current bool // and it is that of the packet being read
}

// before is called before a read, inside a packet or between two.
func (d *deadline) before(inside bool) error {
	if d.conn == nil {
		return nil
	}
	switch {
	case inside && !d.current:
		d.set, d.current = true, true
		return d.conn.SetReadDeadline(time.Now().Add(d.d))
	case !inside && d.set:
		d.set, d.current = false, false
		return d.conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// done is called when a packet is complete.
func (d *deadline) done() { d.current = false }
