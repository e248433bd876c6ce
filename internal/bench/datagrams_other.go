//go:build !linux

package bench

import "net"

// datagrams sends over UDP.
type datagrams struct{ *net.UDPConn }

func newDatagrams(conn *net.UDPConn) (*datagrams, error) { return &datagrams{conn}, nil }

func (d *datagrams) send(packets [][]byte) (int, error) {
	for i, p := range packets {
		if _, err := d.Write(p); err != nil {
			return i, err
		}
	}
	return len(packets), nil
}
