package bus

import (
	"github.com/nats-io/nats.go"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// compose makes the message of f; who sends it says to which subject.
func (f *frame) compose() {
	f.msg = &nats.Msg{Header: frameHeader(f.id.String(), f.compressed), Data: f.body.b[recordHead:]}
}

// divide makes others of a frame that cannot be sent as it is: one for each
// shard, when it was made for another number of them, or two of one that is
// too large; from then on frames are made half as large. An event that is too
// large alone is dropped.
func (p *Publisher) divide(f *frame) {
	events, packets, err := f.unfold()
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.spooled != 0 { // the spool keeps it until its parts are in the stream
		f.part = &parted{seq: f.spooled, frames: 1}
		p.spooling.size -= f.held
		wake(p.spooling.wake)
	}
	defer p.forget(f)
	switch {
	case err != nil:
		p.metrics.drop(dropUnreadable, f.events)
	case f.shards != len(p.subjects):
		p.spread(f, events, packets)
	case f.err == nil: // the number of shards is what it was when the frame was made
		p.part(f, f.shard, events, packets)
	case len(events) == 1:
		p.refuse(f)
	default:
		p.frameBytes.Store(max(p.frameBytes.Load()/2, minFrameBytes))
		half := len(events) / 2
		rest := p.part(f, f.shard, events[:half], packets)
		p.part(f, f.shard, events[half:], rest)
	}
}

// unfold returns the events of f and their packets.
func (f *frame) unfold() (events []trace.Event, packets []byte, err error) {
	packets, _, err = unpack(f.msg.Header, f.msg.Data, nil)
	if err != nil {
		return nil, nil, err
	}
	var d trace.FrameDecoder
	events, err = d.Decode(packets)
	return events, packets, err
}

// part queues a frame with the first packets, which are those of events, and
// returns the others. The lock is held.
func (p *Publisher) part(of *frame, shard int, events []trace.Event, packets []byte) []byte {
	part := p.partOf(of, shard)
	for i := range events {
		n := packetLen(packets)
		part.add(packets[:n], events[i].ID)
		packets = packets[n:]
	}
	p.enqueue(part)
	return packets
}

// partOf returns an empty frame for events of another. The lock is held.
func (p *Publisher) partOf(f *frame, shard int) *frame {
	part := p.newFrame(shard, f.write)
	if part.part = f.part; part.part != nil {
		part.part.frames++
	}
	return part
}

// spread divides a frame among the shards. The lock is held.
func (p *Publisher) spread(f *frame, events []trace.Event, packets []byte) {
	parts := make([]*frame, len(p.subjects))
	for i := range events {
		shard := ShardOf(&events[i], len(parts))
		if parts[shard] == nil {
			parts[shard] = p.partOf(f, shard)
		}
		n := packetLen(packets)
		parts[shard].add(packets[:n], events[i].ID)
		packets = packets[n:]
	}
	for _, part := range parts {
		if part != nil {
			p.enqueue(part)
		}
	}
}

// SetShards says how many streams the fleet has. Frames that were made for
// another number, in memory or in the spool, are divided before they are sent.
func (p *Publisher) SetShards(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsure = false
	if n != len(p.subjects) && n >= 1 && n <= MaxShards {
		p.sealAll()
		p.address(n)
	}
	wake(p.sendWake)
}

// address makes the subjects of n shards. Nothing is open.
func (p *Publisher) address(n int) {
	p.open = make([]*frame, n)
	p.subjects = make([]string, n)
	for shard := range p.subjects {
		p.subjects[shard] = shardSubject(shard) + "." + Token(p.opts.Agent)
	}
}

func (p *Publisher) shards() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.subjects)
}
