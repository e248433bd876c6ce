package capture

import (
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

var update = flag.Bool("update", false, "write the lists in testdata again, with tshark")

// golden are recordings of everything that a proxy, its callers and its HEP
// collector sent each other: over UDP, and in one of them over TCP, too.
var golden = []struct {
	name     string
	packets  int64
	messages int
	tcp      int64
}{
	{"hep3_db", 254, 128, 0},
	{"hep2_db", 254, 128, 0},
	{"core_init1", 258, 128, 0},
	{"tcp_hep3_db", 342, 44, 195},
	{"sip_plain", 254, 252, 0},
}

// TestPcap_findsTheMessagesThatTsharkFinds compares with lists that tshark
// made of the same files, and where there is a tshark, with its own words.
func TestPcap_findsTheMessagesThatTsharkFinds(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			packed := filepath.Join("testdata", g.name+".pcapng.gz")
			list := filepath.Join("testdata", g.name+".tsv")
			if *update {
				if err := os.WriteFile(list, []byte(tshark(t, packed)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(list)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(want, []byte("\n")); n != g.messages {
				t.Fatalf("%s has %d messages, want %d", list, n, g.messages)
			}
			for _, path := range []string{packed, unpack(t, packed)} {
				events, p := read(t, path)
				if got := lines(events); got != string(want) {
					t.Errorf("%s: %s", path, firstDifference(got, string(want)))
				}
				if p.Packets != g.packets || p.TCP != g.tcp || p.Events != int64(g.messages) {
					t.Errorf("%s: progress %+v, want %d packets, %d messages, %d of tcp", path, p, g.packets, g.messages, g.tcp)
				}
				if p.Events+p.Skipped+p.Joined != p.Packets {
					t.Errorf("%s: counters do not add up: %+v", path, p)
				}
			}
			if _, err := exec.LookPath("tshark"); err == nil {
				if got := tshark(t, packed); got != string(want) {
					t.Errorf("tshark says otherwise today: %s", firstDifference(got, string(want)))
				}
			}
		})
	}
}

// lines writes events the way tshark does below.
func lines(events []trace.Event) string {
	var s strings.Builder
	for i := range events {
		e := &events[i]
		e.Identify()
		var m sipmsg.Message
		sipmsg.Scan(&m, e.Payload)
		status := ""
		if m.Response {
			status = strconv.Itoa(m.Status)
		}
		fmt.Fprintf(&s, "%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%x\n", e.Time.UnixMicro(),
			e.Src.Addr(), e.Dst.Addr(), e.Src.Port(), e.Dst.Port(),
			m.Method.Of(e.Payload), status, m.CallID.Of(e.Payload), sha1.Sum(e.Payload))
	}
	return s.String()
}

// tshark lists the SIP messages over UDP in a file. It is told that every
// port is SIP's but that of the HEP collector, whose packets have SIP in them
// and are none.
func tshark(t *testing.T, path string) string {
	t.Helper()
	args := []string{"-r", path, "-Y", "udp && (sip.Request-Line || sip.Status-Line)", "-T", "fields", "-E", "occurrence=f"}
	for _, port := range []string{"15060-15061", "15070-15072", "15080-15081", "19064"} {
		args = append(args, "-d", "udp.port=="+port+",sip")
	}
	for _, field := range []string{"frame.time_epoch", "ip.src", "ip.dst", "udp.srcport", "udp.dstport",
		"sip.Method", "sip.Status-Code", "sip.Call-ID", "udp.payload"} {
		args = append(args, "-e", field)
	}
	cmd := exec.CommandContext(t.Context(), "tshark", args...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, &words)
	}
	var s strings.Builder
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		sec, nano, _ := strings.Cut(f[0], ".")
		f[0] = sec + nano[:6]
		payload, err := hex.DecodeString(f[8])
		if err != nil {
			t.Fatal(err)
		}
		f[8] = fmt.Sprintf("%x", sha1.Sum(payload))
		s.WriteString(strings.Join(f, "\t") + "\n")
	}
	return s.String()
}

// unpack writes a packed file without its packing.
func unpack(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
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
	return write(t, b)
}

// firstDifference shows the first line in which two lists differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}
