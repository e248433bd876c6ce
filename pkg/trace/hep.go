package trace

import (
	"net/netip"
	"unsafe"

	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// FromHEP fills e from a decoded packet. Slices alias the packet; strings go
// through names, so that nothing is allocated for names seen before. What the
// packet does not carry is zero: the time, the agent, addresses. The ID is not
// set; see [Event.Identify].
func FromHEP(e *Event, p *hep.Packet, names *Names) {
	*e = Event{
		Agent:         Agent{ID: p.CaptureID, Name: names.Of(p.Node)},
		Transport:     TransportOf(p.Protocol),
		Src:           netip.AddrPortFrom(p.Src, p.SrcPort),
		Dst:           netip.AddrPortFrom(p.Dst, p.DstPort),
		Type:          p.Type,
		CorrelationID: p.CorrelationID,
		Payload:       p.Payload,
		Chunks:        p.Extra,
		VLAN:          p.VLAN,
	}
	if !p.Has(hep.FieldProtocol) {
		e.Transport = TransportUnknown
	}
	if !p.Has(hep.FieldType) {
		e.Type = TypeSIP
	}
	if t, ok := p.Time(); ok {
		e.Time = t
	}
}

// ToHEP fills p with a version 3 packet for e. Slices alias the event. It
// fails only for a time that HEP cannot carry: before 1970 or after 2106.
func ToHEP(p *hep.Packet, e *Event) error {
	*p = hep.Packet{
		Version:       3,
		Protocol:      e.Transport.IPProtocol(),
		Src:           e.Src.Addr(),
		Dst:           e.Dst.Addr(),
		SrcPort:       e.Src.Port(),
		DstPort:       e.Dst.Port(),
		Type:          e.Type,
		CaptureID:     e.Agent.ID,
		Payload:       e.Payload,
		CorrelationID: e.CorrelationID,
		Extra:         e.Chunks,
		VLAN:          e.VLAN,
	}
	p.Set(hep.FieldProtocol | hep.FieldSrcPort | hep.FieldDstPort | hep.FieldType | hep.FieldCaptureID)
	if p.Payload == nil {
		p.Payload = []byte{} // present, and empty
	}
	if e.Agent.Name != "" {
		// Nobody writes to Node, so the string's own bytes will do.
		p.Node = unsafe.Slice(unsafe.StringData(e.Agent.Name), len(e.Agent.Name))
	}
	return p.SetTime(e.Time)
}

// Names turns bytes into strings and remembers them, so that names seen before
// cost no allocation. It forgets all when there are too many. The zero value
// is ready; it is not for use by several goroutines at once.
type Names struct{ seen map[string]string }

// The bounds of Names: a stranger may invent names without end.
const (
	maxNames   = 4096
	maxNameLen = 256
)

// Of returns b as a string.
func (n *Names) Of(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := n.seen[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(b) > maxNameLen {
		return s
	}
	if n.seen == nil || len(n.seen) >= maxNames {
		n.seen = make(map[string]string)
	}
	n.seen[s] = s
	return s
}
