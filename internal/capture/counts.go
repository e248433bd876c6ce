package capture

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A skip is a reason for which a packet became no event.
type skip int

// The reasons, and the label each has in the metrics.
const (
	taken               skip = iota // an event, or a part of one that is to come
	skipLink                        // a link type we do not read
	skipUndecodable                 // a header does not hold together
	skipNotIP                       // ARP and the like
	skipNotUDP                      // any transport but UDP and TCP
	skipTCP                         // TCP is not read yet
	skipNotSIP                      // UDP, but no SIP in it
	skipBadFragment                 // fragments that contradict each other, or cut ones
	skipFragmentTimeout             // the rest of the datagram did not come
	skipFragmentLimit               // too many datagrams are incomplete
	numSkips
)

var skipLabels = [numSkips]string{
	skipLink:            "link type",
	skipUndecodable:     "undecodable",
	skipNotIP:           "not ip",
	skipNotUDP:          "not udp",
	skipTCP:             "tcp",
	skipNotSIP:          "not sip",
	skipBadFragment:     "bad fragment",
	skipFragmentTimeout: "fragment timeout",
	skipFragmentLimit:   "too many fragments",
}

// String is the label of the metrics.
func (s skip) String() string { return skipLabels[s] }

// Progress tells how far a source is. Every packet ends up in one of Events,
// Joined and Skipped, a fragment when its datagram is done with.
type Progress struct {
	Packets int64 // read
	Events  int64 // made of them
	Cut     int64 // of Events, those of which the file has not all bytes
	Joined  int64 // fragments that are part of the event of another packet
	Skipped int64 // for all reasons
	TCP     int64 // of Skipped, for being TCP

	Bytes int64 // of the file, read
	Size  int64 // of the file; 0 is unknown
}

// counts are the counters behind Progress and the metrics.
type counts struct {
	packets, events, cut, joined atomic.Int64
	skipped                      [numSkips]atomic.Int64
	bytes                        atomic.Int64
}

func (c *counts) progress(size int64) Progress {
	p := Progress{
		Packets: c.packets.Load(), Events: c.events.Load(), Cut: c.cut.Load(), Joined: c.joined.Load(),
		TCP: c.skipped[skipTCP].Load(), Bytes: c.bytes.Load(), Size: size,
	}
	for i := range c.skipped {
		p.Skipped += c.skipped[i].Load()
	}
	return p
}

// metrics are the collectors of c for the source at url.
func (c *counts) metrics(url string) []prometheus.Collector {
	counter := func(name, help string, n *atomic.Int64, labels prometheus.Labels) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(n.Load()) })
	}
	source := prometheus.Labels{"source": url}
	all := []prometheus.Collector{
		counter("siptrace_tap_pcap_packets_total", "Packets read from capture files.", &c.packets, source),
		counter("siptrace_tap_pcap_events_total", "Events made of packets of capture files.", &c.events, source),
		counter("siptrace_tap_pcap_bytes_total", "Bytes read from capture files, as they are on disk.", &c.bytes, source),
	}
	for s := taken + 1; s < numSkips; s++ {
		all = append(all, counter("siptrace_tap_pcap_skipped_total",
			"Packets of capture files that became no event, by reason.", &c.skipped[s],
			prometheus.Labels{"source": url, "reason": s.String()}))
	}
	return all
}

// register registers all of cs or none, and returns what takes them out again.
func register(reg prometheus.Registerer, cs []prometheus.Collector) (undo func(), err error) {
	var done []prometheus.Collector
	undo = func() {
		for _, c := range done {
			reg.Unregister(c)
		}
	}
	for _, c := range cs {
		if err := reg.Register(c); err != nil {
			undo()
			if errors.As(err, &prometheus.AlreadyRegisteredError{}) {
				return nil, fmt.Errorf("it is being read already")
			}
			return nil, err
		}
		done = append(done, c)
	}
	return undo, nil
}
