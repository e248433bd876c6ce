package capture

import (
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// long is a SIP message that needs fragments: its datagram has 2008 bytes.
var long = options + strings.Repeat("a", 2000-len(options))

// order is fragments of a datagram, each [from, to) of its bytes.
type order [][2]int

// frames4 and frames6 make packets of fragments, a millisecond apart.
func frames4(t *testing.T, id uint16, o order) (fs []frame) {
	for i, part := range o {
		fs = append(fs, frame{at: noon.Add(time.Duration(i) * time.Millisecond),
			data: fragment4(t, id, udpBytes(long), part[0], part[1])})
	}
	return fs
}

func frames6(t *testing.T, id uint32, o order) (fs []frame) {
	for i, part := range o {
		fs = append(fs, frame{at: noon.Add(time.Duration(i) * time.Millisecond),
			data: fragment6(t, id, udpBytes(long), part[0], part[1])})
	}
	return fs
}

func TestPcap_joinsFragments(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    order
	}{
		{"in order", order{{0, 1000}, {1000, 2008}}},
		{"the last first", order{{1000, 2008}, {0, 1000}}},
		{"shuffled", order{{1600, 2008}, {800, 1600}, {0, 400}, {400, 800}}},
		{"one twice", order{{0, 1000}, {0, 1000}, {1000, 2008}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for family, frames := range map[string][]frame{"IPv4": frames4(t, 1, tt.o), "IPv6": frames6(t, 1, tt.o)} {
				events, p := read(t, write(t, pcap(t, layers.LinkTypeRaw, frames...)))
				if len(events) != 1 || string(events[0].Payload) != long {
					t.Fatalf("%s: got %d events %+v", family, len(events), events)
				}
				e := events[0]
				if last := frames[len(frames)-1].at; !e.Time.Equal(last) {
					t.Errorf("%s: time %v, want that of the last fragment, %v", family, e.Time, last)
				}
				if want4, want6 := e.Src == src4 && e.Dst == dst4, e.Src == src6 && e.Dst == dst6; !want4 && !want6 {
					t.Errorf("%s: from %v to %v", family, e.Src, e.Dst)
				}
				if p.Joined != int64(len(tt.o)-1) || p.Skipped != 0 {
					t.Errorf("%s: progress %+v, want the other fragments joined", family, p)
				}
			}
		})
	}
}

func TestPcap_keepsDatagramsApart(t *testing.T) {
	a, b := frames4(t, 1, order{{0, 1000}, {1000, 2008}}), frames4(t, 2, order{{0, 1000}, {1000, 2008}})
	c := frames6(t, 1, order{{0, 1000}, {1000, 2008}})
	events, p := read(t, write(t, pcap(t, layers.LinkTypeRaw, a[0], b[0], c[0], at(udp4(t, options)), c[1], b[1], a[1])))
	if len(events) != 4 || p.Joined != 3 || p.Skipped != 0 {
		t.Fatalf("got %d events, %+v, want 4 and 3 joined", len(events), p)
	}
	for i, want := range []string{options, long, long, long} {
		if string(events[i].Payload) != want {
			t.Errorf("event %d is %q", i, events[i].Payload)
		}
	}
}

func TestPcap_givesUpFragments(t *testing.T) {
	half4, half6 := order{{0, 1000}}, order{{1000, 2008}}
	late := func(fs []frame, d time.Duration) []frame {
		for i := range fs {
			fs[i].at = noon.Add(d)
		}
		return fs
	}
	overlap := order{{0, 1000}, {800, 2008}}
	tests := []struct {
		name    string
		frames  []frame
		events  int
		timeout int64
		bad     int64
	}{
		{"when the file ends", append(frames4(t, 1, half4), frames6(t, 1, half6)...), 0, 2, 0},
		{"after their time", append(frames4(t, 1, half4), late(frames4(t, 1, order{{1000, 2008}}), fragmentTimeout+time.Second)...), 0, 2, 0},
		{"after their time, IPv6", append(frames6(t, 1, half4), late(frames6(t, 1, order{{1000, 2008}}), fragmentTimeout+time.Second)...), 0, 2, 0},
		{"not before", append(frames4(t, 1, half4), late(frames4(t, 1, order{{1000, 2008}}), fragmentTimeout-time.Second)...), 1, 0, 0},
		{"if the clock goes back", append(frames4(t, 1, half4), late(frames4(t, 1, order{{1000, 2008}}), -time.Hour)...), 0, 2, 0},
		{"that overlap", frames4(t, 1, overlap), 0, 0, 2},
		{"that overlap, IPv6", frames6(t, 1, overlap), 0, 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newPcap("memory", memory{strings.NewReader(string(pcap(t, layers.LinkTypeRaw, tt.frames...)))}, PcapOptions{}, quiet())
			var events collected
			if err := s.Run(t.Context(), &events); err != nil {
				t.Fatal(err)
			}
			if timeout, bad := s.counts.skipped[skipFragmentTimeout].Load(), s.counts.skipped[skipBadFragment].Load(); len(events) != tt.events ||
				timeout != tt.timeout || bad != tt.bad {
				t.Errorf("got %d events, %d timed out, %d bad, want %d, %d, %d", len(events), timeout, bad, tt.events, tt.timeout, tt.bad)
			}
			if f := s.decoder.fragments; len(f.waiting) != 0 || f.bytes != 0 {
				t.Errorf("%d datagrams and %d bytes are left", len(f.waiting), f.bytes)
			}
		})
	}
}

func TestFragments_holdNoMoreThanTheirLimits(t *testing.T) {
	lost := 0
	f := newFragments(func(int) {}, func(_ skip, parts int) { lost += parts })
	refused := 0
	ip := ipv4(layers.IPProtocolUDP)
	ip.Flags, ip.IHL = layers.IPv4MoreFragments, 5
	ip.Payload = make([]byte, 65512)
	ip.Length = 65532
	for id := range 3000 {
		ip.Id = uint16(id)
		if _, why := f.add4(ip, noon); why == skipFragmentLimit {
			refused++
		}
		if len(f.waiting) > maxIncomplete || f.bytes > maxFragmentBytes {
			t.Fatalf("%d datagrams with %d bytes wait", len(f.waiting), f.bytes)
		}
	}
	ip.Payload, ip.Length = make([]byte, 8), 28
	for id := 3000; id < 9000; id++ {
		ip.Id = uint16(id)
		if _, why := f.add4(ip, noon); why == skipFragmentLimit {
			refused++
		}
		if len(f.waiting) > maxIncomplete || f.bytes > maxFragmentBytes {
			t.Fatalf("%d datagrams with %d bytes wait", len(f.waiting), f.bytes)
		}
	}
	if waiting := len(f.waiting); refused+waiting != 9000 {
		t.Errorf("%d refused and %d waiting, want all of 9000", refused, waiting)
	}
	// Half a minute later there is room again.
	ip.Id = 1
	if _, why := f.add4(ip, noon.Add(fragmentTimeout+time.Second)); why != taken || len(f.waiting) != 1 {
		t.Errorf("later: %v, %d datagrams wait, want the one just added", why, len(f.waiting))
	}
	if lost+refused != 9000 {
		t.Errorf("%d lost, %d refused, want all of 9000", lost, refused)
	}
}
