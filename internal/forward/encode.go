package forward

import (
	"errors"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// An encoder writes events as they go to one destination.
type encoder interface {
	// append appends e to dst and returns the longer slice. On an error,
	// which is a skip or a *refusal, dst comes back as it was.
	append(dst []byte, e *trace.Event) ([]byte, error)

	// forget lets go of the last event.
	forget()
}

// skip is why the destination has no use for an event.
type skip string

func (s skip) Error() string { return "skipped: " + string(s) }

// refusal is why an event cannot be sent, whatever happens.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string {
	if r.err == nil {
		return r.reason
	}
	return r.reason + ": " + r.err.Error()
}

func (r *refusal) Unwrap() error { return r.err }

// rejects gathers the events of one Write that cannot be sent.
type rejects struct {
	list  trace.Rejected
	count *counters
}

// take settles the event at index that an encoder did not encode.
func (r *rejects) take(index int, err error) {
	if s, ok := err.(skip); ok {
		r.count.skip(string(s))
		return
	}
	var no *refusal
	if !errors.As(err, &no) {
		no = &refusal{reasonNotEncodable, err}
	}
	r.add(index, no.reason, no.err)
}

func (r *rejects) add(index int, reason string, err error) {
	r.count.reject(reason)
	r.list = append(r.list, trace.Rejection{Index: index, Reason: reason, Err: err})
}

// err is what Write returns when everything else is sent.
func (r *rejects) err() error {
	if len(r.list) == 0 {
		return nil
	}
	return r.list
}

// hepEncoder writes HEP as a destination wants it: in the order of chunks that
// the usual agents have, always with the IP protocol and the protocol type,
// with the time of capture, and with the chunks that siptrace does not know
// passed through as they came. Behind the payload it writes which fleet has
// sent the packet, if there is a guard.
//
// Versions 1 and 2 carry SIP only. Version 2 has 16 bits for the capture id: a
// larger one loses its upper bits, as it does in Kamailio. Both have one
// address family for both addresses, and refuse a mixed pair; version 3 writes
// the IPv4 address of such a pair as IPv6.
type hepEncoder struct {
	version      uint8
	captureID    uint32
	setCaptureID bool
	auth, node   []byte // nil is the event's
	guard        Guard  // nil marks nothing

	packet hep.Packet // of the last event
}

func newHEPEncoder(d Destination, g Guard) *hepEncoder {
	h := &hepEncoder{version: d.Version, captureID: d.CaptureID, setCaptureID: d.SetCaptureID}
	if d.Version == 3 && !d.NoMark {
		h.guard = g
	}
	if d.Auth != "" {
		h.auth = []byte(d.Auth)
	}
	if d.Node != "" {
		h.node = []byte(d.Node)
	}
	return h
}

func (h *hepEncoder) append(dst []byte, e *trace.Event) ([]byte, error) {
	if h.version < 3 && e.Type != trace.TypeSIP {
		return dst, skip(skipNotSIP)
	}
	p := &h.packet
	if err := trace.ToHEP(p, e); err != nil {
		return dst, &refusal{reasonTime, err}
	}
	p.Version = h.version
	if h.setCaptureID {
		p.CaptureID = h.captureID
	}
	if h.auth != nil {
		p.AuthKey = h.auth
	}
	if h.node != nil {
		p.Node = h.node
	}
	if h.version < 3 {
		if err := fitOld(p); err != nil {
			return dst, err
		}
	}
	out, err := p.Append(dst)
	if err != nil {
		return dst, encodeRefusal(err)
	}
	if h.guard != nil {
		out = mark(out, len(dst), h.guard.Origin())
	}
	return out, nil
}

func (h *hepEncoder) forget() { h.packet = hep.Packet{} }

// fitOld makes p fit for versions 1 and 2.
func fitOld(p *hep.Packet) error {
	src, dst := p.Src.Unmap(), p.Dst.Unmap()
	switch {
	case !src.IsValid() || !dst.IsValid():
		return &refusal{reason: reasonNoAddresses}
	case src.Is4() != dst.Is4():
		return &refusal{reason: reasonMixedFamilies}
	}
	p.CaptureID &= 0xffff
	return nil
}

// encodeRefusal is the refusal for an error of the codec.
func encodeRefusal(err error) *refusal {
	if errors.Is(err, hep.ErrTooLong) {
		return &refusal{reasonTooLongHEP, err}
	}
	return &refusal{reasonNotEncodable, err}
}
