package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// A cutter stands between a program and PostgreSQL. While it is sharp it breaks
// every connection that copies rows, by turns at each of cutPlaces.
type cutter struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	sharp bool
	cuts  [cutPlaces]int
}

// The places.
const (
	cutRows   = iota // half of a message with rows has gone to the server
	cutEnd           // all rows are there, their end is not
	cutAnswer        // COMMIT has gone to the server, its answer never comes back
	cutPlaces
)

// startCutter stands before a server until the test ends, blunt at first.
func startCutter(t *testing.T, to string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{ln: ln, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait() // the programs have ended before, and their connections with them
	})
	return c
}

// before is a database's address with the cutter in between.
func (c *cutter) before(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = c.ln.Addr().String()
	return u.String()
}

// whet makes it sharp, or blunt, and returns how often it has cut at each place.
func (c *cutter) whet(sharp bool) [cutPlaces]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sharp = sharp
	return c.cuts
}

// next is where the next cut is to be.
func (c *cutter) next() (place int, sharp bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	place = (c.cuts[0] + c.cuts[1] + c.cuts[2]) % cutPlaces
	return place, c.sharp
}

func (c *cutter) serve(client *net.TCPConn) {
	defer client.Close()
	conn, err := net.Dial("tcp4", c.to)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer client.Close()
		_, _ = io.Copy(client, server)
	})
	c.forward(server, client)
	_ = server.Close()
	_ = client.Close()
	wg.Wait()
}

// forward brings messages to the server until the connection ends or is cut. The
// first one has no type.
func (c *cutter) forward(server, client *net.TCPConn) {
	r := bufio.NewReader(client)
	for head := 4; ; head = 5 {
		b, err := r.Peek(head)
		if err != nil {
			return
		}
		size := head - 4 + int(binary.BigEndian.Uint32(b[head-4:]))
		kind := b[0]
		message := make([]byte, size)
		if _, err := io.ReadFull(r, message); err != nil {
			return
		}
		if head == 5 && c.cut(kind, message, server, client) {
			return
		}
		if _, err := server.Write(message); err != nil {
			return
		}
	}
}

// cut breaks the connection if the message is at the place for it.
func (c *cutter) cut(kind byte, message []byte, server, client *net.TCPConn) bool {
	place, sharp := c.next()
	through := 0
	switch {
	case !sharp:
		return false
	case kind == 'd' && place == cutRows:
		through = len(message) / 2
	case kind == 'c' && place == cutEnd:
	case kind == 'Q' && place == cutAnswer && bytes.Contains(bytes.ToLower(message), []byte("commit")):
		through = len(message)
	default:
		return false
	}
	_ = client.SetLinger(0) // a reset, and nothing comes back
	_ = client.Close()
	_, _ = server.Write(message[:through])
	c.mu.Lock()
	c.cuts[place]++
	c.mu.Unlock()
	return true
}

func TestFaults_connectionCutInTheMiddleOfACOPY(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	cutter := startCutter(t, u.Host)
	tr := try(t, "PostgreSQL: connections cut in every COPY for "+faultScale().dbAway.String(), nats, d)
	writer := tr.startWriterTo(cutter.before(t, d.url))
	tr.begin()
	cutter.whet(true)
	tr.wait(tr.scale.dbAway)
	eventually(t, "connections were cut at each place", func() bool {
		cuts := cutter.whet(true)
		return min(cuts[cutRows], cuts[cutEnd], cuts[cutAnswer]) > 0
	})
	cuts := cutter.whet(false)
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "%d cut within rows, %d before their end, %d when COMMIT was under way; %.0f batches were written again",
		cuts[cutRows], cuts[cutEnd], cuts[cutAnswer], writer.metric(t, "siptrace_consumer_write_retries_total"))
}
