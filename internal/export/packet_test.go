package export

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A packet is one of a file, as gopacket reads it.
type packet struct {
	at       time.Time
	whole    bool
	comments []string
	gopacket.Packet
}

// packetsOf reads a file of either format.
func packetsOf(t *testing.T, path string) []packet {
	t.Helper()
	b := read(t, path)
	var next func() ([]byte, gopacket.CaptureInfo, []string, error)
	if bytes.HasPrefix(b, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		next = func() ([]byte, gopacket.CaptureInfo, []string, error) {
			data, ci, o, err := r.ReadPacketDataWithOptions()
			return data, ci, o.Comments, err
		}
	} else {
		r, err := pcapgo.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		next = func() ([]byte, gopacket.CaptureInfo, []string, error) {
			data, ci, err := r.ReadPacketData()
			return data, ci, nil, err
		}
	}
	var all []packet
	for {
		data, ci, comments, err := next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, packet{ci.Timestamp, ci.Length == ci.CaptureLength, comments,
			gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)})
	}
}

// udp is the datagram of a packet whose checksums are right.
func (p *packet) udp(t *testing.T) *layers.UDP {
	t.Helper()
	u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok {
		t.Fatalf("no UDP in %v", p)
	}
	if err := u.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	if err, wrong := p.VerifyChecksums(); err != nil || len(wrong) > 0 {
		t.Errorf("wrong checksums: %v, %v", wrong, err)
	}
	return u
}

// ends returns the addresses of a packet.
func (p *packet) ends(t *testing.T) (src, dst string) {
	t.Helper()
	u := p.udp(t)
	s, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	d, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
	return netip.AddrPortFrom(s, uint16(u.SrcPort)).String(), netip.AddrPortFrom(d, uint16(u.DstPort)).String()
}

func TestCapture_hasTheMessagesWithTheirTimesAndAddresses(t *testing.T) {
	const six = "[2001:db8::1]:5061"
	tests := []struct {
		name     string
		event    trace.Event
		src, dst string
	}{
		{"udp", event("udp"), "192.0.2.1:5060", "198.51.100.2:5062"},
		{"tcp", event("tcp", over(trace.TCP)), "192.0.2.1:5060", "198.51.100.2:5062"},
		{"wss over IPv6", event("wss", over(trace.WSS), between(six, "[2001:db8::2]:443")), six, "[2001:db8::2]:443"},
		{"IPv4 in the clothes of IPv6", event("mapped", between("[::ffff:192.0.2.1]:5060", "192.0.2.2:5060")), "192.0.2.1:5060", "192.0.2.2:5060"},
		{"both families", event("both", between("192.0.2.1:5060", six)), "[::ffff:192.0.2.1]:5060", six},
		{"a zone", event("zone", between("[fe80::1%eth0]:5060", six)), "[fe80::1]:5060", six},
		{"nothing known", event("unknown", between("", "")), "0.0.0.0:0", "0.0.0.0:0"},
		{"no destination, IPv6", event("half", between(six, "")), six, "[::]:0"},
		{"an odd number of bytes", event("odd", body(500)), "192.0.2.1:5060", "198.51.100.2:5062"},
		{"nothing in it", event("", func(e *trace.Event) { e.Payload = nil }), "192.0.2.1:5060", "198.51.100.2:5062"},
		{"all a datagram holds", event("x", sized(65507)), "192.0.2.1:5060", "198.51.100.2:5062"},
		{"all a datagram holds, IPv6", event("x", sized(65527), between(six, six)), six, six},
	}
	var events []trace.Event
	for i := range tests {
		tests[i].event.Time = noon.Add(time.Duration(i) * time.Microsecond)
		events = append(events, tests[i].event)
	}
	for _, format := range []Format{Pcap, Pcapng} {
		all := packetsOf(t, write(t, format, events...))
		if len(all) != len(tests) {
			t.Fatalf("%s: %d packets, want %d", format, len(all), len(tests))
		}
		for i, tt := range tests {
			t.Run(string(format)+" "+tt.name, func(t *testing.T) {
				p := all[i]
				if src, dst := p.ends(t); src != tt.src || dst != tt.dst {
					t.Errorf("from %s to %s, want %s to %s", src, dst, tt.src, tt.dst)
				}
				if !bytes.Equal(p.udp(t).Payload, tt.event.Payload) {
					t.Errorf("message is %d bytes, want %d", len(p.udp(t).Payload), len(tt.event.Payload))
				}
				if !p.at.Equal(tt.event.Time) || !p.whole {
					t.Errorf("at %v, whole %v; want %v and whole", p.at, p.whole, tt.event.Time)
				}
			})
		}
	}
}

// sized makes a message of so many bytes.
func sized(n int) func(*trace.Event) {
	return func(e *trace.Event) { e.Payload = append(message("x", 0), make([]byte, n-len(message("x", 0)))...) }
}

func TestCapture_countsWhatIsLongerThanADatagram(t *testing.T) {
	for _, format := range []Format{Pcap, Pcapng} {
		for _, tt := range []struct {
			event trace.Event
			room  int
		}{{event("long", body(70_000)), 65507}, {event("six", body(70_000), between("[::1]:1", "[::2]:2")), 65527}} {
			path := filepath.Join(t.TempDir(), "x")
			f := create(t, string(format)+":"+path, Options{})
			if err := f.Write(t.Context(), []trace.Event{tt.event}); err != nil {
				t.Fatal(err)
			}
			if got := f.Counts(); got.Events != 1 || got.Cut != 1 {
				t.Errorf("%s: %+v, want 1 event, cut", format, got)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if got := packetsOf(t, path)[0].udp(t).Payload; !bytes.Equal(got, tt.event.Payload[:tt.room]) {
				t.Errorf("%s: the packet holds %d bytes, want %d", format, len(got), tt.room)
			}
		}
	}
}

func TestCapture_keepsTheVLAN(t *testing.T) {
	e := event("tagged", func(e *trace.Event) { e.VLAN = 42 })
	p := packetsOf(t, write(t, Pcap, e))[0]
	tag, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q)
	if !ok || tag.VLANIdentifier != 42 {
		t.Errorf("tag %v, want VLAN 42", tag)
	}
	if !bytes.Equal(p.udp(t).Payload, e.Payload) {
		t.Error("the message is another one behind the tag")
	}
}

func TestPcapng_commentsSayWhatAPacketCannot(t *testing.T) {
	e := event("x", over(trace.TLS), func(e *trace.Event) { e.TracedUsers, e.Rule = []string{`al"ice`}, "fraud" })
	long := event("x", body(70_000), func(e *trace.Event) { e.Agent, e.Direction = trace.Agent{}, 0 })
	all := packetsOf(t, write(t, Pcapng, e, long))
	for i, want := range []string{
		`transport=tls direction=in agent="edge-1" agent-id=7 traced="al\"ice" rule="fraud" event=` + e.ID.String(),
		fmt.Sprintf("transport=udp event=%s cut=this is not all of %d bytes", long.ID, len(long.Payload)),
	} {
		if got := strings.Join(all[i].comments, "|"); got != want {
			t.Errorf("comment is %s, want %s", got, want)
		}
	}
}

// TestCapture_isWhatWiresharkReads asks tshark, where it is installed.
func TestCapture_isWhatWiresharkReads(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	events := []trace.Event{
		event("udp@x"),
		event("tls@x", over(trace.TLS), between("[2001:db8::1]:5061", "[2001:db8::2]:5061")),
		event("vlan@x", over(trace.TCP), func(e *trace.Event) { e.VLAN = 42 }),
		event("large@x", func(e *trace.Event) { e.Payload = message("large@x", 60_000) }),
		event("long@x", func(e *trace.Event) { e.Payload = message("long@x", 70_000) }),
	}
	want := "1795348800.123456000|192.0.2.1|||198.51.100.2|5060|5062||MESSAGE|udp@x\n" +
		"1795348800.123456000||2001:db8::1|2001:db8::2||5061|5061||MESSAGE|tls@x\n" +
		"1795348800.123456000|192.0.2.1|||198.51.100.2|5060|5062|42|MESSAGE|vlan@x\n" +
		"1795348800.123456000|192.0.2.1|||198.51.100.2|5060|5062||MESSAGE|large@x\n" +
		"1795348800.123456000|192.0.2.1|||198.51.100.2|5060|5062||MESSAGE|long@x\n"
	for _, format := range []Format{Pcap, Pcapng} {
		cmd := exec.CommandContext(t.Context(), tshark, "-n", "-r", write(t, format, events...),
			"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|",
			"-e", "frame.time_epoch", "-e", "ip.src", "-e", "ipv6.src", "-e", "ipv6.dst", "-e", "ip.dst",
			"-e", "udp.srcport", "-e", "udp.dstport", "-e", "vlan.id", "-e", "sip.Method", "-e", "sip.Call-ID")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("tshark: %v\n%s", err, errs.String())
		}
		if string(out) != want {
			t.Errorf("%s: tshark reads\n%s\nwant\n%s\n%s", format, out, want, errs.String())
		}
		bad, err := exec.CommandContext(t.Context(), tshark, "-n", "-r", write(t, format, events...), "-o", "ip.check_checksum:TRUE",
			"-o", "udp.check_checksum:TRUE", "-Y", "_ws.expert.severity >= 0x00600000 || udp.checksum.status == 0 || ip.checksum.status == 0").Output()
		if err != nil || len(bad) > 0 {
			t.Errorf("%s: tshark complains of\n%s %v", format, bad, err)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte("x"), []byte{192, 0, 2, 1}, []byte{192, 0, 2, 2}, uint16(5060), uint16(0), uint16(0))
	f.Add([]byte(""), make([]byte, 16), []byte{}, uint16(1), uint16(65535), uint16(4095))
	f.Fuzz(func(t *testing.T, payload, src, dst []byte, from, to, vlan uint16) {
		s, _ := netip.AddrFromSlice(src)
		d, _ := netip.AddrFromSlice(dst)
		e := trace.Event{Src: netip.AddrPortFrom(s, from), Dst: netip.AddrPortFrom(d, to), VLAN: vlan & 0xfff, Payload: payload}
		data, cut := newPackets().build(&e)
		p := packet{Packet: gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)}
		u := p.udp(t)
		want := payload
		if cut {
			want = payload[:len(u.Payload)]
		}
		if !bytes.Equal(u.Payload, want) || uint16(u.SrcPort) != from || uint16(u.DstPort) != to {
			t.Errorf("read %d bytes from port %d to %d, want %d from %d to %d", len(u.Payload), u.SrcPort, u.DstPort, len(want), from, to)
		}
	})
}
