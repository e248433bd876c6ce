package capture

import (
	"net/netip"
	"slices"
	"time"

	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/ip6defrag"
	"github.com/gopacket/gopacket/layers"
)

const (
	// fragmentTimeout is how long the parts of a datagram are waited for, in
	// the time of the capture. Systems wait 15 to 60 s.
	fragmentTimeout = 30 * time.Second

	// maxIncomplete is how many datagrams may be waited for at a time, and
	// maxFragmentBytes what all their parts may take.
	maxIncomplete    = 1024
	maxFragmentBytes = 64 << 20

	// fragmentCost is what a part takes besides its bytes.
	fragmentCost = 512

	// sweepEvery is how often datagrams are looked for that were waited for
	// too long.
	sweepEvery = time.Second
)

// fragments joins the fragments of IP datagrams. Each datagram has a
// defragmenter of its own, so that it can be given up on its own: that bounds
// what hostile fragments hold, and for how long.
type fragments struct {
	waiting map[fragmentKey]*incomplete
	bytes   int
	swept   time.Time

	joined func(parts int)           // told of the parts of a complete datagram, but for the last
	lost   func(why skip, parts int) // told of parts given up
}

// fragmentKey is what the fragments of a datagram have in common.
type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
	protocol layers.IPProtocol // IPv4 only
}

// incomplete is a datagram of which parts are there.
type incomplete struct {
	since time.Time
	parts int
	bytes int
	v4    *ip4defrag.IPv4Defragmenter
	v6    *ip6defrag.IPv6Defragmenter
}

func newFragments(joined func(parts int), lost func(why skip, parts int)) *fragments {
	return &fragments{waiting: make(map[fragmentKey]*incomplete), joined: joined, lost: lost}
}

// add4 adds a fragment, and returns the datagram if it was the last one of it.
// Without a datagram and with no reason, the fragment waits for the others.
func (f *fragments) add4(ip *layers.IPv4, at time.Time) (*layers.IPv4, skip) {
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	key := fragmentKey{src, dst, uint32(ip.Id), ip.Protocol}
	in := f.place(key, len(ip.Payload), at)
	if in == nil {
		return nil, skipFragmentLimit
	}
	if in.v4 == nil {
		in.v4 = ip4defrag.NewIPv4Defragmenter()
	}
	// The defragmenter keeps what it is given.
	part := *ip
	part.SrcIP, part.DstIP = slices.Clone(ip.SrcIP), slices.Clone(ip.DstIP)
	part.Contents, part.Options, part.Padding = nil, nil, nil
	part.Payload = slices.Clone(ip.Payload)
	whole, err := in.v4.DefragIPv4WithTimestamp(&part, at)
	if err != nil {
		f.drop(key, in)
		f.lost(skipBadFragment, in.parts-1)
		return nil, skipBadFragment
	}
	if whole != nil {
		f.drop(key, in)
		f.joined(in.parts - 1)
	}
	return whole, taken
}

// add6 is add4 for IPv6.
func (f *fragments) add6(ip *layers.IPv6, frag *layers.IPv6Fragment, at time.Time) (*layers.IPv6, skip) {
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	key := fragmentKey{src: src, dst: dst, id: frag.Identification}
	in := f.place(key, len(frag.Payload), at)
	if in == nil {
		return nil, skipFragmentLimit
	}
	if in.v6 == nil {
		in.v6 = ip6defrag.NewIPv6Defragmenter()
	}
	head := layers.IPv6{Version: 6, SrcIP: slices.Clone(ip.SrcIP), DstIP: slices.Clone(ip.DstIP)}
	part := *frag
	part.Contents, part.Payload = nil, slices.Clone(frag.Payload)
	whole := in.v6.DefragIPv6(&head, &part)
	if whole != nil {
		f.drop(key, in)
		f.joined(in.parts - 1)
	}
	return whole, taken
}

// place is where a fragment of size bytes belongs. It is nil if there is no
// room for it.
func (f *fragments) place(key fragmentKey, size int, at time.Time) *incomplete {
	if d := at.Sub(f.swept); d >= sweepEvery || d < 0 {
		f.swept = at
		f.giveUp(func(in *incomplete) bool { return at.Sub(in.since).Abs() > fragmentTimeout })
	}
	cost := size + fragmentCost
	in := f.waiting[key]
	if f.bytes+cost > maxFragmentBytes || in == nil && len(f.waiting) >= maxIncomplete {
		return nil
	}
	if in == nil {
		in = &incomplete{since: at}
		f.waiting[key] = in
	}
	in.parts++
	in.bytes += cost
	f.bytes += cost
	return in
}

// giveUp gives up the datagrams that match.
func (f *fragments) giveUp(match func(*incomplete) bool) {
	for key, in := range f.waiting {
		if match(in) {
			f.drop(key, in)
			f.lost(skipFragmentTimeout, in.parts)
		}
	}
}

// giveUpAll gives up all datagrams: no more fragments will come.
func (f *fragments) giveUpAll() { f.giveUp(func(*incomplete) bool { return true }) }

// drop forgets a datagram.
func (f *fragments) drop(key fragmentKey, in *incomplete) {
	delete(f.waiting, key)
	f.bytes -= in.bytes
}
