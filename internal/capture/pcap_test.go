package capture

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestPcap_findsSIPUnderEveryHeader(t *testing.T) {
	v4, v6 := udp4(t, options), udp6(t, options)
	eth4 := func(ls ...gopacket.SerializableLayer) []byte {
		return build(t, append(ls, gopacket.Payload(v4))...)
	}
	const ip4, ip6 = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6
	withOptions := ipv4(layers.IPProtocolUDP)
	withOptions.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}

	sll := func(typ layers.EthernetType) gopacket.Payload {
		return gopacket.Payload{0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, byte(typ >> 8), byte(typ)}
	}
	sll2 := func(typ layers.EthernetType) gopacket.Payload {
		return gopacket.Payload{byte(typ >> 8), byte(typ), 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 0, 0, 0, 0, 1, 0, 0}
	}
	tests := []struct {
		name   string
		link   layers.LinkType
		packet []byte
		vlan   uint16
		six    bool
	}{
		{"Ethernet, IPv4", layers.LinkTypeEthernet, eth4(ethernet(ip4)), 0, false},
		{"Ethernet, IPv6", layers.LinkTypeEthernet, build(t, ethernet(ip6), gopacket.Payload(v6)), 0, true},
		{"Ethernet with a trailer", layers.LinkTypeEthernet, append(eth4(ethernet(ip4)), "trailer"...), 0, false},
		{"VLAN", layers.LinkTypeEthernet, eth4(ethernet(tagIEEE8021Q), vlan(42, ip4)), 42, false},
		{"VLAN, IPv6", layers.LinkTypeEthernet, build(t, ethernet(tagIEEE8021Q), vlan(42, ip6), gopacket.Payload(v6)), 42, true},
		{"QinQ 88a8", layers.LinkTypeEthernet, eth4(ethernet(tagIEEE8021AD), vlan(9, tagIEEE8021Q), vlan(42, ip4)), 42, false},
		{"QinQ 9100", layers.LinkTypeEthernet, eth4(ethernet(tagQinQ), vlan(9, tagIEEE8021Q), vlan(42, ip4)), 42, false},
		{"QinQ 9100 in 9100", layers.LinkTypeEthernet, eth4(ethernet(tagQinQ), vlan(9, tagQinQ), vlan(42, ip4)), 42, false},
		{"three tags", layers.LinkTypeEthernet, eth4(ethernet(tagIEEE8021Q), vlan(8, tagIEEE8021Q), vlan(9, tagIEEE8021Q), vlan(42, ip4)), 42, false},
		{"Linux SLL", layers.LinkTypeLinuxSLL, eth4(sll(ip4)), 0, false},
		{"Linux SLL, VLAN", layers.LinkTypeLinuxSLL, eth4(sll(tagIEEE8021Q), vlan(42, ip4)), 42, false},
		{"Linux SLL2", layers.LinkTypeLinuxSLL2, eth4(sll2(ip4)), 0, false},
		{"Linux SLL2, IPv6", layers.LinkTypeLinuxSLL2, build(t, sll2(ip6), gopacket.Payload(v6)), 0, true},
		{"null, little endian", layers.LinkTypeNull, eth4(gopacket.Payload{2, 0, 0, 0}), 0, false},
		{"null, big endian", layers.LinkTypeNull, eth4(gopacket.Payload{0, 0, 0, 2}), 0, false},
		{"loop, IPv6 of macOS", layers.LinkTypeLoop, build(t, gopacket.Payload{0, 0, 0, 30}, gopacket.Payload(v6)), 0, true},
		{"raw IPv4", layers.LinkTypeRaw, v4, 0, false},
		{"raw IPv6", layers.LinkTypeRaw, v6, 0, true},
		{"raw 12", linkRaw12, v4, 0, false},
		{"raw 14", linkRaw14, v6, 0, true},
		{"link type IPv4", layers.LinkTypeIPv4, v4, 0, false},
		{"link type IPv6", layers.LinkTypeIPv6, v6, 0, true},
		{"IPv4 options", layers.LinkTypeRaw, build(t, withOptions, udp(t, withOptions), gopacket.Payload(options)), 0, false},
		{"IPv6 extensions", layers.LinkTypeRaw, build(t, ipv6(layers.IPProtocolIPv6HopByHop),
			destinationOptions(layers.IPProtocolIPv6Routing),
			gopacket.Payload{byte(layers.IPProtocolIPv6Destination), 0, 0, 0, 0, 0, 0, 0},
			destinationOptions(layers.IPProtocolUDP), gopacket.Payload(udpBytes(options))), 0, true},
		{"an atomic fragment", layers.LinkTypeRaw, fragment6(t, 1, udpBytes(options), 0, 8+len(options)), 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events, _ := read(t, write(t, pcap(t, tt.link, at(tt.packet))))
			if len(events) != 1 {
				t.Fatalf("got %d events, want 1", len(events))
			}
			src, dst := src4, dst4
			if tt.six {
				src, dst = src6, dst6
			}
			e := events[0]
			if e.Src != src || e.Dst != dst || e.VLAN != tt.vlan || string(e.Payload) != options ||
				!e.Time.Equal(noon) || e.Transport != trace.UDP || e.Type != trace.TypeSIP || e.Flags != 0 || e.Agent != (trace.Agent{}) {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestPcap_countsWhatIsNoSIP(t *testing.T) {
	ip4 := layers.EthernetTypeIPv4
	tests := []struct {
		name   string
		link   layers.LinkType
		packet []byte
		want   skip
	}{
		{"a link type of its own", 147, udp4(t, options), skipLink},
		{"half a head", layers.LinkTypeEthernet, []byte{1, 2, 3}, skipUndecodable},
		{"half a VLAN tag", layers.LinkTypeEthernet, build(t, ethernet(tagIEEE8021Q))[:16], skipUndecodable},
		{"nothing", layers.LinkTypeRaw, nil, skipUndecodable},
		{"IPv4 of no length", layers.LinkTypeRaw, []byte{0x45, 0, 0, 1}, skipUndecodable},
		{"IPv6 cut", layers.LinkTypeRaw, udp6(t, options)[:39], skipUndecodable},
		{"UDP cut", layers.LinkTypeRaw, udp4(t, options)[:27], skipUndecodable},
		{"UDP shorter than its head", layers.LinkTypeRaw, build(t, ipv4(layers.IPProtocolUDP), gopacket.Payload{0, 1, 0, 2, 0, 7, 0, 0}), skipUndecodable},
		{"ARP", layers.LinkTypeEthernet, build(t, ethernet(layers.EthernetTypeARP), gopacket.Payload(make([]byte, 28))), skipNotIP},
		{"IP of version 5", layers.LinkTypeRaw, []byte{0x50, 0, 0, 0}, skipNotIP},
		{"ICMP", layers.LinkTypeRaw, build(t, ipv4(layers.IPProtocolICMPv4), gopacket.Payload("ping")), skipNotUDP},
		{"no next header", layers.LinkTypeRaw, build(t, ipv6(layers.IPProtocolNoNextHeader), gopacket.Payload("x")), skipNotUDP},
		{"TCP", layers.LinkTypeRaw, build(t, ipv4(layers.IPProtocolTCP), gopacket.Payload(options)), skipTCP},
		{"TCP over IPv6", layers.LinkTypeRaw, build(t, ipv6(layers.IPProtocolTCP), gopacket.Payload(options)), skipTCP},
		{"a keep-alive", layers.LinkTypeEthernet, build(t, ethernet(ip4), gopacket.Payload(udp4(t, "\r\n\r\n"))), skipNotSIP},
		{"RTP", layers.LinkTypeEthernet, build(t, ethernet(ip4), gopacket.Payload(udp4(t, "\x80\x00\x00\x01"))), skipNotSIP},
		{"an empty datagram", layers.LinkTypeEthernet, build(t, ethernet(ip4), gopacket.Payload(udp4(t, ""))), skipNotSIP},
		{"HEP", layers.LinkTypeEthernet, build(t, ethernet(ip4), gopacket.Payload(udp4(t, "HEP3\x00\x06"))), skipNotSIP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			path := write(t, pcap(t, tt.link, at(tt.packet)))
			s, err := OpenPcap(path, PcapOptions{}, reg, quiet())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var got collected
			if err := s.Run(t.Context(), &got); err != nil {
				t.Fatal(err)
			}
			if len(got) != 0 {
				t.Errorf("got events %+v, want none", got)
			}
			if n := s.counts.skipped[tt.want].Load(); n != 1 {
				t.Errorf("%q counts %d, want 1; all: %+v", tt.want, n, s.Progress())
			}
			want := "# HELP siptrace_tap_pcap_packets_total Packets read from capture files.\n" +
				"# TYPE siptrace_tap_pcap_packets_total counter\n" +
				"siptrace_tap_pcap_packets_total{source=\"pcap:" + path + "\"} 1\n"
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "siptrace_tap_pcap_packets_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPcap_keepsMessagesThatTheCaptureCut(t *testing.T) {
	packet := udp4(t, options)
	for _, cut := range []int{1, 50, len(options) - 40} {
		events, p := read(t, write(t, pcap(t, layers.LinkTypeRaw, frame{at: noon, data: packet, cut: cut}, at(packet))))
		if len(events) != 2 || p.Cut != 1 {
			t.Fatalf("cut by %d: got %d events, %d cut, want 2 and 1", cut, len(events), p.Cut)
		}
		if got, want := string(events[0].Payload), options[:len(options)-cut]; got != want || events[0].Flags != trace.Truncated {
			t.Errorf("cut by %d: got %q with flags %v, want %q, truncated", cut, got, events[0].Flags, want)
		}
		if string(events[1].Payload) != options || events[1].Flags != 0 {
			t.Errorf("cut by %d: the next packet is %+v", cut, events[1])
		}
	}
}

func TestPcap_writesManyBatchesInOrder(t *testing.T) {
	var frames []frame
	for i := range 1000 {
		frames = append(frames, frame{at: noon.Add(time.Duration(i) * time.Microsecond), data: udp4(t, options)})
	}
	s := newPcap("memory", memory{bytes.NewReader(pcap(t, layers.LinkTypeRaw, frames...))}, PcapOptions{Batch: 7}, quiet())
	var got []int64
	err := s.Run(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
		if len(events) == 0 || len(events) > 7 {
			t.Errorf("a batch of %d, want 1 to 7", len(events))
		}
		for i := range events {
			got = append(got, events[i].Time.UnixMicro()-noon.UnixMicro())
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1000 {
		t.Fatalf("got %d events, want 1000", len(got))
	}
	for i, us := range got {
		if us != int64(i) {
			t.Fatalf("event %d is of microsecond %d", i, us)
		}
	}
}

func TestPcap_endsWithTheErrorOfTheSink(t *testing.T) {
	full := errors.New("disk full")
	file := pcap(t, layers.LinkTypeRaw, at(udp4(t, options)), at(udp4(t, options)), at(udp4(t, options)))
	for _, batch := range []int{1, 2, 100} {
		s := newPcap("memory", memory{bytes.NewReader(file)}, PcapOptions{Batch: batch}, quiet())
		calls := 0
		err := s.Run(t.Context(), trace.SinkFunc(func(context.Context, []trace.Event) error { calls++; return full }))
		if !errors.Is(err, full) || calls != 1 {
			t.Errorf("batches of %d: got %v after %d calls, want %v after 1", batch, err, calls, full)
		}
	}
}

func TestPcap_endsWithItsContext(t *testing.T) {
	var frames []frame
	for range 100 {
		frames = append(frames, at(udp4(t, options)))
	}
	s := newPcap("memory", memory{bytes.NewReader(pcap(t, layers.LinkTypeRaw, frames...))}, PcapOptions{Batch: 10}, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := s.Run(ctx, trace.SinkFunc(func(context.Context, []trace.Event) error { calls++; cancel(); return nil }))
	if err != nil || calls != 1 {
		t.Errorf("got %v after %d writes, want nil after 1", err, calls)
	}
}

func TestPcap_doesNotMakeAnEventWaitForTheNextPacket(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s, err := openPcap("-", r, PcapOptions{}, prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan int), make(chan error)
	go func() {
		done <- s.Run(ctx, trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
			got <- len(events)
			return nil
		}))
	}()
	file := pcap(t, layers.LinkTypeRaw, at(udp4(t, options)), at(udp4(t, options)))
	for _, part := range [][]byte{file[:len(file)/2+20], file[len(file)/2+20:]} {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != 1 {
			t.Errorf("got %d events, want 1", n)
		}
	}
	cancel() // while the source waits for the writer
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// TestPcap_readsStandardInput runs itself as the reader of a pipe.
func TestPcap_readsStandardInput(t *testing.T) {
	const inside = "SIPTRACE_TEST_STDIN"
	if os.Getenv(inside) != "" {
		events, _ := read(t, "-")
		if len(events) != 2 {
			t.Fatalf("got %d events, want 2", len(events))
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := pcap(t, layers.LinkTypeRaw, at(udp4(t, options)), at(udp4(t, options)))
	onDisk, err := os.Open(write(t, file))
	if err != nil {
		t.Fatal(err)
	}
	defer onDisk.Close()
	for name, stdin := range map[string]io.Reader{"pipe": bytes.NewReader(file), "file": onDisk} {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestPcap_readsStandardInput$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin = stdin
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestOpenPcap_refusesWhatIsNoCapture(t *testing.T) {
	for name, content := range map[string]string{
		"nothing": "", "one byte": "\n", "text": "INVITE sip:bob@example.com SIP/2.0\r\n", "HEP": "HEP3\x00\x06",
		"a packed text": "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcbH\xcd\xc9\xc9\x07\x00\x86\xa6\x106\x05\x00\x00\x00",
		"half a head":   "\xd4\xc3\xb2\xa1\x02\x00\x04\x00",
	} {
		if _, _, err := run(t, write(t, []byte(content))); !errors.Is(err, errFormat) {
			t.Errorf("%s: got %v, want %v", name, err, errFormat)
		}
	}
	if _, _, err := run(t, t.TempDir()); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: got %v", err)
	}
	if _, _, err := run(t, "/no/such/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}

func TestOpenPcap_countsOneFileOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	path := write(t, pcap(t, layers.LinkTypeRaw))
	first, err := OpenPcap(path, PcapOptions{}, reg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPcap(path, PcapOptions{}, reg, quiet()); err == nil {
		t.Error("opened twice")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenPcap(path, PcapOptions{}, reg, quiet())
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	_ = again.Close()
}

func TestParsePcap(t *testing.T) {
	for in, want := range map[string]string{
		"pcap:calls.pcapng": "calls.pcapng", "pcap:/var/x.pcap": "/var/x.pcap", "pcap:///var/x.pcap": "/var/x.pcap",
		"pcap:-": "-", "PCAP:what?.pcap": "what?.pcap", "pcap:": "", "pcap://": "", "hep+udp://:9060": "", "calls.pcap": "",
	} {
		got, err := ParsePcap(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParsePcap(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	if Accepts("hep+udp://:9060") || !Accepts("pcap:x") || Accepts("pcap") {
		t.Error("Accepts does not go by the scheme")
	}
}
