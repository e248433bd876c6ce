package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestProxy_setUpTimes prints what a tracer with a dead sink does to the time
// from INVITE to 200:
//
//	go test -run setUpTimes -v -ratio 10000
//
// Two proxies run in processes of their own, and calls go to them in turn. It
// asserts no more than that every call comes through: times are this machine's.
func TestProxy_setUpTimes(t *testing.T) {
	if *ratio == 0 {
		t.Skip("for people: -ratio N makes N calls with a tracer and N without")
	}
	callee := newPhone(t)
	go callee.answer()
	names := []string{"no tracer", "dead sink"}
	proxies := []*child{startChild(t, callee.addr, ""), startChild(t, callee.addr, deadCollector(t))}
	caller := newPhone(t)
	times := make([][]time.Duration, len(proxies))
	for i := range *ratio {
		for k := range proxies {
			which := (i + k) % len(proxies)
			times[which] = append(times[which], caller.call(proxies[which].addr, i*len(proxies)+k))
		}
	}
	for i, p := range proxies {
		r := p.stop(t)
		slices.Sort(times[i])
		t.Logf("%s: %d calls, mean %v, p50 %v, p99 %v; %d messages seen, %d dropped", names[i], len(times[i]),
			mean(times[i]), quantile(times[i], 0.5), quantile(times[i], 0.99), r.Tap.Seen, r.Tap.Dropped)
	}
	t.Logf("ratio: mean %.3f, p50 %.3f, p99 %.3f", by(mean(times[1]), mean(times[0])),
		by(quantile(times[1], 0.5), quantile(times[0], 0.5)), by(quantile(times[1], 0.99), quantile(times[0], 0.99)))
}

// answer answers calls until the phone is closed.
func (p *phone) answer() {
	b := make([]byte, 65535)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if m := string(b[:n]); strings.HasPrefix(m, "INVITE") {
			_, _ = p.conn.WriteToUDPAddrPort([]byte(respond(m, "200 OK")), from) // or it is asked again
		}
	}
}

// call makes a call and returns how long it took to be answered.
func (p *phone) call(proxy netip.AddrPort, n int) time.Duration {
	p.t.Helper()
	id := fmt.Sprintf("call-%d", n)
	named := func(m string) string { return strings.Replace(m, "Call-ID: call", "Call-ID: "+id, 1) }
	begin := time.Now()
	p.send(proxy, named(p.request("INVITE", "sip:bob@example.com", n+1)))
	for field(p.receive("SIP/2.0 200"), "Call-ID") != id {
	}
	took := time.Since(begin)
	p.send(proxy, named(p.request("ACK", "sip:bob@example.com", n+1)))
	return took
}

// child is a proxy in a process of its own.
type child struct {
	addr netip.AddrPort
	cmd  *exec.Cmd
	out  bytes.Buffer
}

func startChild(t *testing.T, to netip.AddrPort, hep string) *child {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "sipgo-proxy")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c := &child{addr: freePort(t)}
	c.cmd = exec.CommandContext(t.Context(), binary, "-listen", c.addr.String(), "-to", to.String(), "-hep", hep)
	c.cmd.Stdout = &c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the proxy listens", func() bool {
		conn, err := net.Dial("tcp", c.addr.String())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return c
}

// stop ends the proxy and returns its report.
func (c *child) stop(t *testing.T) (r report) {
	t.Helper()
	_ = c.cmd.Process.Signal(os.Interrupt) // an error shows in Wait
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("proxy: %v", err)
	}
	if err := json.Unmarshal(c.out.Bytes(), &r); err != nil {
		t.Fatalf("proxy printed %q: %v", c.out.String(), err)
	}
	return r
}

// deadCollector takes connections and reads nothing from them.
func deadCollector(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		var held []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			held = append(held, c)
		}
		for _, c := range held {
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		group.Wait()
	})
	return "hep+tcp://" + l.Addr().String()
}

func mean(v []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range v {
		sum += d
	}
	return sum / time.Duration(len(v))
}

// quantile is one of a sorted list.
func quantile(v []time.Duration, q float64) time.Duration { return v[int(q*float64(len(v)-1))] }

func by(a, b time.Duration) float64 { return float64(a) / float64(b) }
