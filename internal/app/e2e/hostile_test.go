package e2e

import (
	"bytes"
	"encoding/base64"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// hostile are datagrams that are no traced message, by the reason for which a
// tap drops them.
func hostile(t *testing.T) map[string][][]byte {
	t.Helper()
	p := invite(0)
	good, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	patched := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	noise := make([]byte, 65507) // the largest datagram
	rand.NewChaCha8([32]byte{'e', '2', 'e'}).Read(noise)
	noise[0] = 0xff // no version of HEP
	nothing := hep.Packet{Version: 3, Protocol: 17, Type: hep.TypeSIP, Src: p.Src, Dst: p.Dst}
	empty, err := nothing.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][][]byte{
		"empty":      {{}, {}},
		"not hep":    {noise, []byte("\r\n\r\n"), []byte("HEP4"), p.Payload, {0}, bytes.Repeat([]byte{0xff}, 1400)},
		"truncated":  {good[:5], good[:40], good[:len(good)-1], {1}, {2, 16}, {1, 16, 2, 17}},
		"bad length": {patched(4, 0, 5), patched(4, 0, 0)},
		"bad chunk":  {patched(10, 0, 3), patched(10, 0, 0)},
		"no payload": {empty},
		"unknown family": {
			append([]byte{1, 16, 99, 17}, make([]byte, 40)...),
			append([]byte{2, 16, 0, 17}, make([]byte, 40)...),
		},
	}
}

func TestTap_hostileDatagramsAreCountedAndCostNoGoodOne(t *testing.T) {
	d, nats := database(t), startNATS(t)
	addr := freeAddr(t)
	tap := startTap(t, nats.url(), "edge", addr, t.TempDir())
	writer := startWriter(t, nats, d)
	tap.ready(t)
	s := send(t, "udp", addr)
	want := make(map[string]float64)
	sent := 0
	for reason, datagrams := range hostile(t) {
		for _, b := range datagrams {
			s.invites(3)
			s.bytes(b)
			want[reason]++
			sent += 4
		}
	}
	s.invites(3)
	sent += 3
	eventually(t, "the tap has received all", func() bool { return tap.metric(t, "siptrace_tap_hep_packets_total") == float64(sent) })

	dropped := make(map[string]float64)
	for _, m := range tap.metrics(t)["siptrace_tap_hep_dropped_total"].GetMetric() {
		for _, l := range m.GetLabel() {
			if n := m.GetCounter().GetValue(); l.GetName() == "reason" && n > 0 {
				dropped[l.GetValue()] = n
			}
		}
	}
	if !maps.Equal(dropped, want) {
		t.Errorf("dropped by reason %v, want %v", dropped, want)
	}
	if got := tap.metric(t, "siptrace_tap_hep_events_total"); got != float64(len(s.sent)) {
		t.Errorf("%v events, want %d", got, len(s.sent))
	}
	s.once(d)
	if lines := strings.Count(tap.err.String(), "hep packets dropped"); lines == 0 || lines > 20 {
		t.Errorf("the log speaks %d times of dropped packets, want at least once and not of each", lines)
	}
	tap.stop(t)
	writer.stop(t)
}

// broken are SIP messages that no parser likes. Each is somebody's evidence.
var broken = map[string]string{
	"no Call-ID":             "OPTIONS sip:x SIP/2.0\r\n\r\n",
	"NUL in the middle":      "INVITE sip:a\x00b@c SIP/2.0\r\nCall-ID: nul\x00id\r\nFrom: <sip:\x00@c>;tag=\x00\r\nCSeq: 1 INVITE\r\n\r\n\x00\x01\x02",
	"no UTF-8":               "MESSAGE sip:b@c SIP/2.0\r\nCall-ID: latin\xe9\r\nFrom: \"\xe9\" <sip:\xe9@c>;tag=\xff\r\nCSeq: 1 MESSAGE\r\n\r\n\xff\xfe\xfd",
	"no SIP at all":          "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	"a lone line":            "INVITE",
	"white space":            "\r\n\r\n  \t",
	"only a NUL":             "\x00",
	"a long Call-ID":         "BYE sip:b@c SIP/2.0\r\nCall-ID: " + strings.Repeat("x", 4000) + "\r\nCSeq: 1 BYE\r\n\r\n",
	"a huge body":            "INFO sip:b@c SIP/2.0\r\nCall-ID: huge\r\nCSeq: 1 INFO\r\n\r\n" + strings.Repeat("\x00\xff", 31_000),
	"a status beyond all":    "SIP/2.0 99999999999999999999 Never\r\nCall-ID: status\r\nCSeq: 99999999999999999999 INVITE\r\n\r\n",
	"SQL":                    "INVITE sip:b@c SIP/2.0\r\nCall-ID: '; DROP TABLE sip_trace; --\\\r\nCSeq: 1 INVITE\r\n\r\n",
	"backslash and tab":      "INVITE sip:b@c SIP/2.0\r\nCall-ID: a\\N\\.\tb\r\nCSeq: 1 INVITE\r\n\r\n",
	"an unfinished UTF-8":    "INVITE sip:b@c SIP/2.0\r\nCall-ID: \xe2\x82\r\nCSeq: 1 INVITE\r\n\r\n",
	"an escape of terminals": "INVITE sip:b@c SIP/2.0\r\nCall-ID: \x1b[2J\x1b]0;x\x07\r\nCSeq: 1 INVITE\r\n\r\n",
}

func TestTap_brokenSIPIsStoredByteForByteAndFoundAgain(t *testing.T) {
	d, nats := database(t), startNATS(t)
	addr := freeAddr(t)
	tap := startTap(t, nats.url(), "edge", addr, t.TempDir())
	writer := startWriter(t, nats, d)
	tap.ready(t)
	s := send(t, "udp", addr)
	for _, payload := range broken {
		p := invite(1)
		p.Payload = []byte(payload)
		s.packet(&p)
	}
	d.holds(t, len(broken))
	stored := make(map[string]bool)
	for _, r := range d.rows(t) {
		stored[string(r.Msg)] = true
	}
	for name, payload := range broken {
		if !stored[payload] {
			t.Errorf("%s: not stored as it was", name)
		}
	}

	found := make(map[string]bool)
	for _, row := range objects(t, must(t, "ctl", "search", "--store", d.url, "--json", "--limit", "0")) {
		switch {
		case row["msg"] != nil:
			found[row["msg"].(string)] = true
		case row["msg_b64"] != nil:
			b, err := base64.StdEncoding.DecodeString(row["msg_b64"].(string))
			if err != nil {
				t.Fatal(err)
			}
			found[string(b)] = true
		}
	}
	for name, payload := range broken {
		if !found[payload] {
			t.Errorf("%s: search does not show it as it was", name)
		}
	}
	table := must(t, "ctl", "search", "--store", d.url, "--limit", "0")
	if strings.ContainsAny(table, "\x00\x1b\x07") {
		t.Error("the table hands control characters to the terminal")
	}
	if n := strings.Count(table, "\n"); n != len(broken)+1 {
		t.Errorf("the table has %d lines, want %d", n, len(broken)+1)
	}
	tap.stop(t)
	writer.stop(t)
}
