package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// udpCollector is a UDP socket that keeps what comes.
type udpCollector struct {
	conn *net.UDPConn
	got  chan datagram
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

// socketful is how many events of a test the receive buffer of a UDP socket has
// room for, also where the system allows no more than 208 KiB: so many arrive,
// however late they are taken. They are more than two batches.
const socketful = 150

// listenUDP listens on an address, with port 0 on any that is free.
func listenUDP(t testing.TB, addr string) *udpCollector {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	c := &udpCollector{conn: conn, got: make(chan datagram, 1<<16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.got <- datagram{slices.Clone(buf[:n]), from}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return c
}

func (c *udpCollector) addr() string { return c.conn.LocalAddr().String() }

// next returns the next datagram.
func (c *udpCollector) next(t testing.TB) datagram {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case d := <-c.got:
		return d
	case <-ctx.Done():
		t.Fatal("no datagram came")
		return datagram{}
	}
}

// take returns the next n packets, decoded.
func (c *udpCollector) take(t testing.TB, n int) []hep.Packet {
	t.Helper()
	var packets []hep.Packet
	for range n {
		d := c.next(t)
		p, err := hep.Decode(d.b)
		if err != nil {
			t.Fatalf("datagram of %d bytes: %v", len(d.b), err)
		}
		packets = append(packets, p)
	}
	return packets
}

// closedPort is a port of 127.0.0.1 on which nobody listens.
func closedPort(t testing.TB, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// tcpCollector accepts connections and gives each to serve, which is told
// which one it is.
type tcpCollector struct {
	ln net.Listener

	mu    sync.Mutex
	conns []net.Conn
	got   map[string]int // payloads, how often
	wrong []error        // what was no HEP
	wg    sync.WaitGroup
}

type serve func(c *tcpCollector, conn net.Conn, n int)

// listenTCP starts a collector; config makes it one for TLS.
func listenTCP(t testing.TB, addr string, config *tls.Config, serve serve) *tcpCollector {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	c := &tcpCollector{ln: ln, got: make(map[string]int)}
	c.wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			c.wg.Go(func() { serve(c, conn, n) })
		}
	})
	t.Cleanup(func() {
		c.stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, err := range c.wrong {
			t.Errorf("collector: %v", err)
		}
	})
	return c
}

func (c *tcpCollector) addr() string { return c.ln.Addr().String() }

// stop closes the listener and all connections.
func (c *tcpCollector) stop() {
	_ = c.ln.Close()
	c.hangUp()
	c.wg.Wait()
}

// hangUp closes all connections.
func (c *tcpCollector) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// accepted is how many connections there have been.
func (c *tcpCollector) accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

// peer is who made the n-th connection.
func (c *tcpCollector) peer(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conns[n].RemoteAddr().String()
}

// payloads are those that came, with how often.
func (c *tcpCollector) payloads() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]int, len(c.got))
	for k, v := range c.got {
		m[k] = v
	}
	return m
}

// readAll keeps what comes until the connection ends.
func readAll(c *tcpCollector, conn net.Conn, _ int) { c.read(conn, -1) }

// readNothing leaves a connection alone.
func readNothing(*tcpCollector, net.Conn, int) {}

// read keeps the next n packets of a connection, or all there are if n is
// below 0.
func (c *tcpCollector) read(conn net.Conn, n int) {
	r := hep.NewReader(conn)
	for ; n != 0; n-- {
		b, err := r.Next()
		if errors.Is(err, hep.ErrSync) {
			c.mu.Lock()
			c.wrong = append(c.wrong, err)
			c.mu.Unlock()
		}
		if err != nil {
			_ = conn.Close()
			return
		}
		p, err := hep.Decode(b)
		c.mu.Lock()
		if err != nil {
			c.wrong = append(c.wrong, err)
		}
		c.got[string(p.Payload)]++
		c.mu.Unlock()
	}
}

// reset closes a connection with a reset.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// drain reads and forgets.
func drain(_ *tcpCollector, conn net.Conn, _ int) { _, _ = io.Copy(io.Discard, conn) }
