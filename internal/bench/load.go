package bench

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	// packetRoom holds the largest packet of the traffic.
	packetRoom = 2048

	// burst is the most packets that one system call sends.
	burst = 256

	// quantum is how long events are gathered for one system call: what is
	// due comes at most so much late, but for what the machine adds.
	quantum = time.Millisecond

	// patience is how long a peer that takes nothing is waited for.
	patience = 30 * time.Second
)

// A Load is what was sent.
type Load struct {
	Sent    uint64        `json:"sent"`
	Bytes   uint64        `json:"bytes"`
	Took    time.Duration `json:"took_ns"` // from the first event to the last
	Latest  time.Duration `json:"latest_ns"`
	started time.Time
}

// A sender sends packets in one go; what it does not take is lost to nobody:
// it says how many it took.
type sender interface {
	send(packets [][]byte) (int, error)
	Close() error
}

// dial opens the way to a URL.
func dial(url string) (sender, error) {
	scheme, addr, ok := strings.Cut(url, "://")
	if !ok {
		return nil, fmt.Errorf("%q is no URL: use hep+udp://HOST:PORT or hep+tcp://HOST:PORT", url)
	}
	switch scheme {
	case "hep+udp":
		c, err := net.Dial("udp", addr)
		if err != nil {
			return nil, err
		}
		return newDatagrams(c.(*net.UDPConn))
	case "hep+tcp":
		c, err := net.DialTimeout("tcp", addr, 3*time.Second)
		if err != nil {
			return nil, err
		}
		return &stream{conn: c}, nil
	}
	return nil, fmt.Errorf("%q: use hep+udp://HOST:PORT or hep+tcp://HOST:PORT", url)
}

// stream sends over TCP.
type stream struct {
	conn net.Conn
	buf  []byte
}

func (s *stream) Close() error { return s.conn.Close() }

// send returns when the kernel has taken everything.
func (s *stream) send(packets [][]byte) (int, error) {
	s.buf = s.buf[:0]
	for _, p := range packets {
		s.buf = append(s.buf, p...)
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := s.conn.Write(s.buf); err != nil {
		return 0, err
	}
	return len(packets), nil
}

// run sends the traffic at a rate for as long as d says, or until ctx is done.
// Each packet says that it was captured when it was due.
func run(ctx context.Context, to sender, traffic *Traffic, rate int, d time.Duration) (load Load, err error) {
	p := pace{start: time.Now(), rate: rate}
	total := p.total(d)
	load.started = p.start
	defer func() { load.Took = time.Since(p.start) }()

	memory := make([]byte, burst*packetRoom)
	packets := make([][]byte, 0, burst)
	made := uint64(0) // packets made; those at the end of packets are not yet sent
	for load.Sent < total {
		if err := ctx.Err(); err != nil {
			return load, err
		}
		now := time.Now()
		due := min(p.due(now), total)
		for ; made < due && len(packets) < burst; made++ {
			room := memory[int(made%burst)*packetRoom:][:0:packetRoom]
			packets = append(packets, traffic.Append(room, p.at(made)))
		}
		if len(packets) == 0 {
			if err := sleepUntil(ctx, p.next(load.Sent, total)); err != nil {
				return load, err
			}
			continue
		}
		load.Latest = max(load.Latest, now.Sub(p.at(load.Sent)))
		n, err := to.send(packets)
		if err != nil {
			return load, err
		}
		load.count(packets[:n])
		packets = append(packets[:0], packets[n:]...)
	}
	return load, nil
}

func (l *Load) count(packets [][]byte) {
	l.Sent += uint64(len(packets))
	for _, p := range packets {
		l.Bytes += uint64(len(p))
	}
}

// next is when enough events are due again to be worth a system call.
func (p pace) next(sent, total uint64) time.Time {
	return p.at(min(sent+max(1, p.total(quantum)), total) - 1)
}

// sleepUntil returns at t, or with an error when ctx is done before.
func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
