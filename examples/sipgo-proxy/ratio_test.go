package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
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

// TestProxy_setUpTimes prints what a tracer does to the time from INVITE to
// 200 when what is behind it has died:
//
//	go test -run setUpTimes -v -ratio 10000
//
// Calls go to proxies in processes of their own, in turn, and in an order that is
// drawn for each round, so that none always comes behind the same other. Two of
// them have no tracer: what is between these two is noise. It asserts that every
// call comes through and no message goes unnoticed; times are this machine's.
func TestProxy_setUpTimes(t *testing.T) {
	if *ratio == 0 {
		t.Skip("for people: -ratio N makes N calls with a tracer and N without")
	}
	callee := newPhone(t)
	go callee.answer()
	proxies := []struct {
		name, hep string
		*child
		times []time.Duration
	}{
		{name: "no tracer"},
		{name: "no tracer, too"},
		{name: "NATS stopped", hep: tapWithoutNATS(t)},
		{name: "dead collector", hep: deadCollector(t)},
	}
	for i := range proxies {
		proxies[i].child = startChild(t, callee.addr, proxies[i].hep)
	}
	caller := newPhone(t)
	order := rand.New(rand.NewPCG(1, 1))
	for i := range *ratio + warmUp {
		for _, which := range order.Perm(len(proxies)) {
			p := &proxies[which]
			took := caller.call(p.addr, i*len(proxies)+which)
			if i >= warmUp {
				p.times = append(p.times, took)
			}
		}
	}
	base := &proxies[0]
	more := make([]time.Duration, len(proxies)) // than base, in the same round
	for i := range proxies {
		more[i] = typical(proxies[i].times, base.times)
	}
	for i := range proxies {
		slices.Sort(proxies[i].times)
	}
	for i := range proxies {
		p := &proxies[i]
		s := p.stop(t).Tap
		t.Logf("%-14s  %d calls, mean %v, p50 %v, p99 %v; ratio: mean %.3f, p50 %.3f, p99 %.3f, more in a round: p50 %v; seen %d, written %d, waiting %d, dropped %d",
			p.name, len(p.times), mean(p.times).Round(time.Microsecond),
			quantile(p.times, 0.5).Round(time.Microsecond), quantile(p.times, 0.99).Round(time.Microsecond),
			by(mean(p.times), mean(base.times)), by(quantile(p.times, 0.5), quantile(base.times, 0.5)),
			by(quantile(p.times, 0.99), quantile(base.times, 0.99)), more[i].Round(100*time.Nanosecond), s.Seen, s.Written, s.Waiting, s.Dropped)
		if p.hep == "" {
			continue
		}
		if least := uint64(messages * (*ratio + warmUp)); s.Seen < least || s.Seen != s.Written+s.Waiting+s.Dropped+s.Refused {
			t.Errorf("%s: %+v, want %d seen at least, and each of them accounted for", p.name, s, least)
		}
	}
}

const (
	warmUp   = 200 // calls that are not measured
	messages = 7   // of a call as the proxy sees it: INVITE and ACK twice, 100, 200 twice
)

// tapWithoutNATS is a tap in a process of its own that has lost its NATS.
func tapWithoutNATS(t *testing.T) (url string) {
	t.Helper()
	at := freePort(t)
	stopNATS := background(t, build(t, "github.com/nats-io/nats-server/v2"),
		"--addr", at.Addr().String(), "--port", fmt.Sprint(at.Port()), "--jetstream", "--store_dir", t.TempDir())
	in, status := freePort(t), freePort(t)
	url = "hep+udp://" + in.String()
	background(t, build(t, "../../cmd/tap"), "--nats", "nats://"+at.String(), "--in", url, "--data", t.TempDir(),
		"--http", status.String(), "--log-level", "error")
	ready := func(want int) func() bool {
		return func() bool {
			res, err := http.Get("http://" + status.String() + "/readyz")
			if err != nil {
				return false
			}
			_ = res.Body.Close()
			return res.StatusCode == want
		}
	}
	eventually(t, "the tap is ready", ready(http.StatusOK))
	stopNATS()
	eventually(t, "the tap knows that NATS is away", ready(http.StatusServiceUnavailable))
	http.DefaultClient.CloseIdleConnections()
	return url
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

// background runs a command until the end of the test, or until stop.
func background(t *testing.T, binary string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", strings.Join(cmd.Args, " "), words.String())
		}
	})
	t.Cleanup(stop)
	return stop
}

// build builds a command.
func build(t *testing.T, pkg string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "command")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return binary
}

func startChild(t *testing.T, to netip.AddrPort, hep string) *child {
	t.Helper()
	c := &child{addr: freePort(t)}
	c.cmd = exec.CommandContext(t.Context(), build(t, "."), "-listen", c.addr.String(), "-to", to.String(), "-hep", hep)
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

// typical is the median of how much longer a took than b.
func typical(a, b []time.Duration) time.Duration {
	more := make([]time.Duration, len(a))
	for i := range a {
		more[i] = a[i] - b[i]
	}
	slices.Sort(more)
	return quantile(more, 0.5)
}

// quantile is one of a sorted list.
func quantile(v []time.Duration, q float64) time.Duration { return v[int(q*float64(len(v)-1))] }

func by(a, b time.Duration) float64 { return float64(a) / float64(b) }
