package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// snapLength is what readers of a capture must be ready for: the value of
// tcpdump and Wireshark.
const snapLength = 262144

var errTime = errors.New("a time outside 1970–2106")

// info describes the packet of e, if the formats have room for its time.
func info(e *trace.Event, size int) (gopacket.CaptureInfo, error) {
	if s := e.Time.Unix(); s < 0 || s > math.MaxUint32 {
		return gopacket.CaptureInfo{}, fmt.Errorf("%s: %w", e.Time.UTC().Format(time.DateTime), errTime)
	}
	return gopacket.CaptureInfo{Timestamp: e.Time, CaptureLength: size, Length: size}, nil
}

// pcapEncoder writes pcap with microseconds, the form that everything reads.
type pcapEncoder struct {
	packets *packets
	w       *pcapgo.Writer
}

func (c *pcapEncoder) head(b *buffer, appending bool) error {
	c.w = pcapgo.NewWriter(b)
	if appending {
		return nil
	}
	return c.w.WriteFileHeader(snapLength, layers.LinkTypeEthernet)
}

func (*pcapEncoder) check(begin []byte) error {
	var own buffer
	if err := new(pcapEncoder).head(&own, false); err != nil {
		return err
	}
	if !bytes.Equal(begin, own.b) {
		return errors.New("no pcap as siptrace writes it")
	}
	return nil
}

func (c *pcapEncoder) event(_ *buffer, e *trace.Event) (cut bool, err error) {
	if e.Type != trace.TypeSIP {
		return false, errLeftOut
	}
	packet, cut := c.packets.build(e)
	ci, err := info(e, len(packet))
	if err != nil {
		return false, err
	}
	return cut, c.w.WritePacket(ci, packet)
}

// pcapngEncoder writes pcapng: a section for each time the file was opened, an
// interface in it, and packets with a comment each.
type pcapngEncoder struct {
	packets *packets
	w       *pcapgo.NgWriter
	comment []byte
}

func (c *pcapngEncoder) head(b *buffer, _ bool) (err error) {
	c.w, err = pcapgo.NewNgWriterInterface(b,
		pcapgo.NgInterface{Name: "siptrace", LinkType: layers.LinkTypeEthernet, SnapLength: snapLength},
		pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
			Application: "siptrace",
			Comment:     "Packets are made up around SIP messages. Whatever carried a message, it is in one UDP datagram here; the comment on each tells.",
		}})
	if err != nil {
		return err
	}
	return c.w.Flush()
}

func (*pcapngEncoder) check(begin []byte) error {
	if len(begin) < 4 || binary.LittleEndian.Uint32(begin) != 0x0a0d0d0a {
		return errors.New("no pcapng")
	}
	return nil
}

func (c *pcapngEncoder) event(_ *buffer, e *trace.Event) (cut bool, err error) {
	if e.Type != trace.TypeSIP {
		return false, errLeftOut
	}
	packet, cut := c.packets.build(e)
	ci, err := info(e, len(packet))
	if err != nil {
		return false, err
	}
	c.describe(e, cut)
	err = c.w.WritePacketWithOptions(ci, packet, pcapgo.NgPacketOptions{Comments: []string{string(c.comment)}})
	if err != nil {
		return false, err
	}
	return cut, c.w.Flush()
}

// describe writes the comment: what the packet itself cannot say.
func (c *pcapngEncoder) describe(e *trace.Event, cut bool) {
	b := c.comment[:0]
	add := func(key, value string) {
		if value == "" {
			return
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, key...), '='), value...)
	}
	add("transport", e.Transport.String())
	add("direction", e.Direction.String())
	if e.Agent.Name != "" {
		add("agent", strconv.Quote(e.Agent.Name))
	}
	if e.Agent.ID != 0 {
		add("agent-id", strconv.FormatUint(uint64(e.Agent.ID), 10))
	}
	for _, u := range e.TracedUsers {
		add("traced", strconv.Quote(u))
	}
	if e.Rule != "" {
		add("rule", strconv.Quote(e.Rule))
	}
	if !e.ID.IsZero() {
		add("event", e.ID.String())
	}
	if cut {
		add("cut", "this is not all of "+strconv.Itoa(len(e.Payload))+" bytes")
	}
	if e.Flags.Has(trace.Truncated) {
		add("cut", "when captured")
	}
	c.comment = b[:min(len(b), maxComment)]
}

// maxComment is what the 16 bits of an option's length leave room for.
const maxComment = 1<<16 - 4
