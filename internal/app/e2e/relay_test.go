package e2e

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// A datagram is what came, and when.
type datagram struct {
	at   time.Time
	body []byte
}

// A relay passes datagrams on and keeps a copy: what the far side was sent.
type relay struct {
	conn *net.UDPConn
	to   netip.AddrPort // zero passes nothing on

	mu   sync.Mutex
	seen []datagram
}

// newRelay returns a relay to an address, which works until the test ends.
func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{}
	if to != "" {
		r.to = netip.MustParseAddrPort(to)
	}
	var err error
	if r.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(loopback+":0"))); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.SetReadBuffer(8 << 20); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.run(t) })
	t.Cleanup(func() {
		_ = r.conn.Close()
		wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.conn.LocalAddr().String() }

func (r *relay) run(t *testing.T) {
	b := make([]byte, 65535)
	for {
		n, _, err := r.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // somebody's port was closed
		}
		r.mu.Lock()
		r.seen = append(r.seen, datagram{time.Now(), bytes.Clone(b[:n])})
		r.mu.Unlock()
		if !r.to.IsValid() {
			continue
		}
		if _, err := r.conn.WriteToUDPAddrPort(b[:n], r.to); err != nil {
			t.Errorf("relay: %v", err)
		}
	}
}

// recorded is all that came so far.
func (r *relay) recorded() []datagram {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// A collector takes HEP as Homer does.
type collector struct {
	relay *relay // over UDP,
	ln    net.Listener

	mu      sync.Mutex
	packets []hep.Packet // or over TCP
	conns   map[net.Conn]bool
}

// collectUDP is a collector for HEP over UDP.
func collectUDP(t *testing.T) *collector {
	t.Helper()
	return &collector{relay: newRelay(t, "")}
}

// collectTCP is a collector for HEP version 3 over TCP.
func collectTCP(t *testing.T) *collector {
	t.Helper()
	return collectTCPAt(t, loopback+":0")
}

func collectTCPAt(t *testing.T, addr string) *collector {
	t.Helper()
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{ln: ln, conns: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.read(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		c.hangUp()
		wg.Wait()
	})
	return c
}

// read takes packets off a connection.
func (c *collector) read(conn net.Conn) {
	defer conn.Close()
	c.mu.Lock()
	c.conns[conn] = true
	c.mu.Unlock()
	r := hep.NewReader(conn)
	for {
		b, err := r.Next()
		if err != nil {
			return
		}
		p, err := hep.Decode(bytes.Clone(b))
		if err != nil {
			continue // the comparison finds it missing
		}
		c.mu.Lock()
		c.packets = append(c.packets, p)
		c.mu.Unlock()
	}
}

// hangUp closes every connection.
func (c *collector) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close()
	}
}

func (c *collector) addr() string {
	if c.relay != nil {
		return c.relay.addr()
	}
	return c.ln.Addr().String()
}

// received is all that came so far; it fails the test for what is no HEP.
func (c *collector) received(t *testing.T) []hep.Packet {
	t.Helper()
	if c.relay != nil {
		return decoded(t, c.relay.recorded())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.packets)
}

// decoded are the packets in datagrams.
func decoded(t *testing.T, datagrams []datagram) []hep.Packet {
	t.Helper()
	packets := make([]hep.Packet, len(datagrams))
	for i, d := range datagrams {
		var err error
		if packets[i], err = hep.Decode(d.body); err != nil {
			t.Fatalf("datagram %d: %v: %x", i, err, d.body)
		}
	}
	return packets
}
