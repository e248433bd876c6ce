package e2e

import (
	"bufio"
	"compress/gzip"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

// recorded is a recording of a proxy's traffic, and the list of the SIP
// messages that tshark finds in it: time, addresses, ports, method, status,
// Call-ID, SHA-1 of the message.
const recorded = "../../capture/testdata/core_init1"

// recent writes the recording as it would be had it begun at a time: a
// database takes nothing from too far away.
func recent(t *testing.T, began time.Time) (path string) {
	t.Helper()
	in, err := os.Open(recorded + ".pcapng.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(unpacked, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "recent.pcap")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := pcapgo.NewWriter(out)
	if err := w.WriteFileHeader(65535, r.LinkType()); err != nil {
		t.Fatal(err)
	}
	shift := began.Sub(firstMessage(t))
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return path
		}
		if err != nil {
			t.Fatal(err)
		}
		info.Timestamp = info.Timestamp.Add(shift)
		if err := w.WritePacket(info, data); err != nil {
			t.Fatal(err)
		}
	}
}

// listed is the list of the messages as if the first had come at a time: time,
// source, destination, SHA-1.
func listed(t *testing.T, began time.Time) []string {
	t.Helper()
	shift := began.Sub(firstMessage(t)).Microseconds()
	var list []string
	for _, f := range readList(t) {
		us, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%d udp:%s:%s udp:%s:%s %s", us+shift, f[1], f[3], f[2], f[4], f[8]))
	}
	slices.Sort(list)
	return list
}

func firstMessage(t *testing.T) time.Time {
	t.Helper()
	us, err := strconv.ParseInt(readList(t)[0][0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMicro(us)
}

func readList(t *testing.T) [][]string {
	t.Helper()
	file, err := os.Open(recorded + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var list [][]string
	for s := bufio.NewScanner(file); s.Scan(); {
		f := strings.Split(s.Text(), "\t")
		if len(f) != 9 {
			t.Fatalf("%q has %d fields, want 9", s.Text(), len(f))
		}
		list = append(list, f)
	}
	return list
}

func TestTap_readsACaptureFileOnceAndEnds(t *testing.T) {
	d, nats := database(t), startNATS(t)
	writer := startWriter(t, nats, d)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	file, want := recent(t, began), listed(t, began)

	for range 2 { // what is read again is the same again, and stored once
		must(t, "tap", "--nats", nats.url(), "--in", "pcap:"+file, "--once", "--agent-name", "edge", "--http=")
		d.holds(t, len(want))
		var got []string
		for _, r := range d.rows(t) {
			got = append(got, fmt.Sprintf("%d %s %s %x", r.Time.UnixMicro(), r.From, r.To, sha1.Sum(r.Msg)))
			if r.Node != "edge" {
				t.Errorf("row %s is of node %q, want edge", r.ID, r.Node)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("stored\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	worked(t, nats)
	writer.stop(t)
	d.holds(t, len(want))
}
