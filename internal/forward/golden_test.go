package forward

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// recorded are the datagrams that Kamailio's siptrace sent in one run.
func recorded(t testing.TB, run string) [][]byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", run+".lp.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var datagrams [][]byte
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint32(b)) + 4
		datagrams = append(datagrams, b[4:n])
		b = b[n:]
	}
	if len(datagrams) < 50 {
		t.Fatalf("run %s has %d datagrams, want at least 50", run, len(datagrams))
	}
	return datagrams
}

// recordedEvents are the events that HEP datagrams are about.
func recordedEvents(t testing.TB, datagrams [][]byte) []trace.Event {
	t.Helper()
	var names trace.Names
	events := make([]trace.Event, len(datagrams))
	for i, b := range datagrams {
		p, err := hep.Decode(b)
		if err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		trace.FromHEP(&events[i], &p, &names)
		if p.Version == 1 {
			events[i].Time = time.Unix(1767225600, 0) // as received; version 1 tells no time
		}
		events[i].Identify()
	}
	return events
}

func TestHEP_isWhatKamailioSends(t *testing.T) {
	tests := []struct{ run, options string }{
		{"hep1_db", "?version=1"},
		{"hep2_db", "?version=2"},
		{"hep3_db", "?version=3"},
	}
	for _, tt := range tests {
		t.Run(tt.run, func(t *testing.T) {
			want := recorded(t, tt.run)
			c := listenUDP(t, "127.0.0.1:0")
			s := openSink(t, "hep+udp://"+c.addr()+tt.options, Options{})
			deliver(t, s, recordedEvents(t, want))
			for i := range want {
				got := c.next(t).b
				if tt.run == "hep2_db" {
					copy(want[i][26:28], []byte{0, 0}) // padding, which Kamailio does not set
				}
				if !bytes.Equal(got, want[i]) {
					t.Fatalf("datagram %d:\n got %q\nwant %q", i, got, want[i])
				}
			}
		})
	}
}

// Kamailio writes the correlation id in front of the key, most other agents
// behind it, and so do we.
func TestHEP_hasTheChunksThatKamailioSends(t *testing.T) {
	want := recorded(t, "corr_t")
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "hep+udp://"+c.addr()+"?auth=s3cret-key", Options{})
	deliver(t, s, recordedEvents(t, want))
	for i := range want {
		got, want := sortedChunks(t, c.next(t).b), sortedChunks(t, want[i])
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("datagram %d:\n got %q\nwant %q", i, got, want)
		}
	}
}

// sortedChunks are the chunks of a packet in the order of their bytes.
func sortedChunks(t testing.TB, packet []byte) [][]byte {
	t.Helper()
	var chunks [][]byte
	for c, err := range hep.Chunks(packet) {
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, hep.AppendChunk(nil, c.Vendor, c.Type, c.Body))
	}
	slices.SortFunc(chunks, bytes.Compare)
	return chunks
}

func TestSIP_isWhatKamailioSends(t *testing.T) {
	want := recorded(t, "sip_plain")
	events := make([]trace.Event, len(want))
	for i, b := range want {
		events[i] = invite(i)
		events[i].Payload = b
	}
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "sip:"+c.addr(), Options{})
	deliver(t, s, events)
	for i := range want {
		if got := c.next(t).b; !bytes.Equal(got, want[i]) {
			t.Fatalf("datagram %d:\n got %q\nwant %q", i, got, want[i])
		}
	}
}

func TestSIP_hasTheHeadersThatKamailioAdds(t *testing.T) {
	want := recorded(t, "sip_xhw")
	events := make([]trace.Event, len(want))
	for i, b := range want {
		events[i] = withoutXHeaders(t, b)
	}
	c := listenUDP(t, "127.0.0.1:0")
	s := openSink(t, "sip+udp://"+c.addr()+"?xheaders=1", Options{})
	deliver(t, s, events)
	for i := range want {
		if got := c.next(t).b; !bytes.Equal(got, want[i]) {
			t.Fatalf("datagram %d:\n got %q\nwant %q", i, got, want[i])
		}
	}
}

var xheaders = regexp.MustCompile(`X-Siptrace-Fromip: (\w+):(\S+)\r\nX-Siptrace-Toip: \w+:(\S+)\r\n` +
	`X-Siptrace-Time: (\d+) (\d+)\r\nX-Siptrace-Method: \S+\r\nX-Siptrace-Dir: (in|out)\r\n`)

// withoutXHeaders is the event that a message with X-Siptrace headers is about.
func withoutXHeaders(t testing.TB, b []byte) trace.Event {
	t.Helper()
	m := xheaders.FindSubmatchIndex(b)
	if m == nil {
		t.Fatalf("no X-Siptrace headers in %q", b)
	}
	word := func(i int) string { return string(b[m[2*i]:m[2*i+1]]) }
	number := func(i int) int64 {
		n, err := strconv.ParseInt(word(i), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	transport, ok1 := trace.ParseTransport(word(1))
	direction, ok2 := trace.ParseDirection(word(6))
	if !ok1 || !ok2 {
		t.Fatalf("cannot read %q", b[m[0]:m[1]])
	}
	return trace.Event{
		Time:      time.UnixMicro(number(4)*1e6 + number(5)),
		Transport: transport,
		Src:       netip.MustParseAddrPort(word(2)),
		Dst:       netip.MustParseAddrPort(word(3)),
		Direction: direction,
		Type:      trace.TypeSIP,
		Payload:   append(bytes.Clone(b[:m[0]]), b[m[1]:]...),
	}
}
