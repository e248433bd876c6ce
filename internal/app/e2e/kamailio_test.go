package e2e

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// calls is how many calls of each kind go through the proxy.
const calls = 20

// A message is what has to be the same from Kamailio to the last collector.
type message struct {
	payload  string
	src, dst string
	us       int64 // capture time in microseconds; 0 where it is not told
}

func (m message) String() string {
	line, _, _ := strings.Cut(m.payload, "\r\n")
	return fmt.Sprintf("%s → %s at %d: %s", m.src, m.dst, m.us, line)
}

func compareMessages(a, b message) int {
	return cmp.Or(cmp.Compare(a.us, b.us), cmp.Compare(a.src, b.src), cmp.Compare(a.dst, b.dst), cmp.Compare(a.payload, b.payload))
}

// without leaves out what keep says is not to be compared.
func without(list []message, strip func(*message)) []message {
	list = slices.Clone(list)
	for i := range list {
		strip(&list[i])
	}
	return list
}

func time_(m *message)       { m.us = 0 }
func destination(m *message) { m.us, m.dst = 0, "" }

// same fails the test unless got and want are the same messages, each as often.
func same(t *testing.T, who string, got, want []message) {
	t.Helper()
	got, want = slices.SortedFunc(slices.Values(got), compareMessages), slices.SortedFunc(slices.Values(want), compareMessages)
	if slices.Equal(got, want) {
		return
	}
	extra, missing := subtract(got, want), subtract(want, got)
	t.Errorf("%s: %d messages, want %d: %d too many, %d missing", who, len(got), len(want), len(extra), len(missing))
	for _, m := range extra[:min(3, len(extra))] {
		t.Logf("%s: too many: %v", who, m)
	}
	for _, m := range missing[:min(3, len(missing))] {
		t.Logf("%s: missing: %v", who, m)
	}
}

// subtract is what is in a more often than in b.
func subtract(a, b []message) []message {
	n := make(map[message]int)
	for _, m := range b {
		n[m]++
	}
	var rest []message
	for _, m := range a {
		if n[m]--; n[m] < 0 {
			rest = append(rest, m)
		}
	}
	return rest
}

// messagesOf are packets as messages.
func messagesOf(packets []hep.Packet) []message {
	var list []message
	for _, p := range packets {
		m := message{payload: string(p.Payload), src: endpoint(p.Src, p.SrcPort), dst: endpoint(p.Dst, p.DstPort)}
		if at, ok := p.Time(); ok {
			m.us = at.UnixMicro()
		}
		list = append(list, m)
	}
	return list
}

func endpoint(host fmt.Stringer, port uint16) string {
	return net.JoinHostPort(host.String(), fmt.Sprint(port))
}

// messagesIn are rows as messages. It fails the test for a row that is at odds
// with itself.
func messagesIn(t *testing.T, rows []row) []message {
	t.Helper()
	var list []message
	for _, r := range rows {
		if got := r.Time.Nanosecond() / 1000; got != r.TimeUS {
			t.Errorf("row %s: time_us %d, and time_stamp has %d microseconds", r.ID, r.TimeUS, got)
		}
		src, udp := strings.CutPrefix(r.From, "udp:")
		dst, alsoUDP := strings.CutPrefix(r.To, "udp:")
		if !udp || !alsoUDP {
			t.Errorf("row %s: from %q to %q, want udp:", r.ID, r.From, r.To)
		}
		list = append(list, message{payload: string(r.Msg), src: src, dst: dst, us: r.Time.UnixMicro()})
	}
	return list
}

// captured are the messages that a Kamailio with sipcapture has printed. Its
// version 5.6 knows no destination, and no time, in its script.
func captured(t *testing.T, p *process) []message {
	t.Helper()
	var list []message
	for _, line := range p.err.lines() {
		_, rest, ok := strings.Cut(line, "CAPTURED ")
		if !ok {
			continue
		}
		src, digits, _ := strings.Cut(rest, " ")
		payload, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("sipcapture printed %q: %v", line, err)
		}
		list = append(list, message{payload: string(payload), src: src})
	}
	return list
}

// startSipcapture starts a Kamailio that collects HEP.
func startSipcapture(t *testing.T) (p *process, addr string) {
	t.Helper()
	addr = freeAddr(t)
	p = kamailio(t, "sipcapture.cfg", map[string]any{"Listen": addr})
	eventually(t, "sipcapture listens", func() bool { return strings.Contains(p.err.String()+p.out.String(), "udp: "+loopback) })
	return p, addr
}

func TestPipeline_storesAndForwardsEveryMessageKamailioSends(t *testing.T) {
	needSIP(t)
	for version := 1; version <= 3; version++ {
		t.Run(fmt.Sprintf("HEP version %d", version), func(t *testing.T) { pipeline(t, version) })
	}
}

// pipeline runs Kamailio → tap → NATS → db-writer and hep-forwarder → collectors.
func pipeline(t *testing.T, version int) {
	d := database(t)
	nats := startNATS(t)
	v1, v2, v3, v3tcp, twin := collectUDP(t), collectUDP(t), collectUDP(t), collectTCP(t), collectUDP(t)
	sipcapture, sipcaptureAddr := startSipcapture(t)
	tapAddr := freeAddr(t)
	wire := newRelay(t, tapAddr)
	writer := program(t, "db-writer", "--nats", nats.url(), "--store", d.url, "--http", loopback+":0")
	forwarder := program(t, "hep-forwarder", "--nats", nats.url(), "--http", loopback+":0", "--start", "all",
		"--to", "hep+udp://"+v1.addr()+"?version=1", "--to", "hep+udp://"+v2.addr()+"?version=2",
		"--to", "hep+udp://"+v3.addr(), "--to", "hep+tcp://"+v3tcp.addr(), "--to", "hep+udp://"+sipcaptureAddr,
		"--to", fmt.Sprintf("hep+udp://%s?version=%d%s", twin.addr(), version, unmarked(version)))
	tap := program(t, "tap", "--nats", nats.url(), "--in", "hep+udp://"+tapAddr, "--agent-name", "edge", "--http", loopback+":0")
	writer.ready(t)
	forwarder.ready(t)
	tap.ready(t)

	began := time.Now()
	proxy := startProxy(t, version, wire.addr())
	least := proxy.traffic(t, calls)
	proxy.process.stop(t) // it has sent what it had to send
	sent := settled(t, wire, least)
	ended := time.Now()
	for i, b := range wire.recorded() {
		if got := versionOf(b.body); got != version {
			t.Fatalf("datagram %d is HEP version %d, want %d", i, got, version)
		}
	}

	d.holds(t, len(sent))
	rows := d.rows(t)
	inRows := messagesIn(t, rows)
	if version == 1 { // it carries no time: the tap takes it
		same(t, "database", without(inRows, time_), sent)
		for _, r := range rows {
			if r.Time.Before(began) || r.Time.After(ended) {
				t.Errorf("row %s: captured at %v, want between %v and %v", r.ID, r.Time, began, ended)
			}
		}
	} else {
		same(t, "database", inRows, sent)
	}

	for name, c := range map[string]*collector{"HEP version 2": v2, "HEP version 3": v3, "HEP version 3 over TCP": v3tcp} {
		eventually(t, name+" collector has all", func() bool { return len(c.received(t)) >= len(rows) })
		same(t, name, messagesOf(c.received(t)), inRows)
		checkAgent(t, name, version, c.received(t))
	}
	eventually(t, "version 1 collector has all", func() bool { return len(v1.received(t)) >= len(rows) })
	same(t, "HEP version 1", messagesOf(v1.received(t)), without(inRows, time_))
	eventually(t, "the collector of Kamailio's version has all", func() bool { return len(twin.received(t)) >= len(rows) })
	exactly(t, "the bytes that Kamailio sent", twin.relay.copied(), padded(wire.copied()))
	eventually(t, "sipcapture has all", func() bool { return len(captured(t, sipcapture)) >= len(rows) })
	same(t, "sipcapture", captured(t, sipcapture), without(inRows, destination))

	for _, p := range []*process{tap, writer, forwarder} {
		p.stop(t)
	}
}

// unmarked asks for nothing but Kamailio's bytes.
func unmarked(version int) string {
	if version == 3 {
		return "&mark=0"
	}
	return ""
}

// padded are datagrams with noughts in the padding of HEP version 2, where
// Kamailio leaves what was there.
func padded(datagrams []string) []string {
	for i, d := range datagrams {
		if d[0] == 2 {
			datagrams[i] = d[:26] + "\x00\x00" + d[28:]
		}
	}
	return datagrams
}

// settled waits until so many messages at least have come, and nothing more
// comes, and returns what came.
func settled(t *testing.T, r *relay, least int) []message {
	t.Helper()
	eventually(t, fmt.Sprintf("Kamailio has sent all of its %d messages or more", least), func() bool {
		all := r.recorded()
		return len(all) >= least && len(all) > 0 && time.Since(all[len(all)-1].at) > 500*time.Millisecond
	})
	return messagesOf(decoded(t, r.recorded()))
}

// versionOf is the version of HEP of a datagram.
func versionOf(b []byte) int {
	if bytes.HasPrefix(b, []byte("HEP3")) {
		return 3
	}
	return int(b[0])
}

// checkAgent fails the test unless Kamailio's capture id comes out again, or
// the tap's name where Kamailio has sent none.
func checkAgent(t *testing.T, who string, version int, packets []hep.Packet) {
	t.Helper()
	const captureID = 2001 // of testdata/siptrace.cfg
	for _, p := range packets {
		switch {
		case version > 1 && p.CaptureID != captureID:
			t.Fatalf("%s: capture id %d, want %d", who, p.CaptureID, captureID)
		case version == 1 && p.Version == 3 && string(p.Node) != "edge":
			t.Fatalf("%s: node %q, want edge", who, p.Node)
		}
	}
}
