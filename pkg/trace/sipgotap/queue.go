package sipgotap

import (
	"net/netip"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

const (
	// minBuffer holds a few messages of any size.
	minBuffer = 1 << 20

	// bytesPerRecord is how many bytes of the buffer go with one record, at
	// least: a flood of tiny messages must not take memory without bound.
	bytesPerRecord = 512

	// buckets is the number of chains by which messages are found again.
	buckets = 4096

	// maxLook bounds how many messages a mark is compared with.
	maxLook = 1024

	// maxRead bounds how many messages the first mark of all has read, which
	// whoever sends or receives waits for: two milliseconds of them.
	maxRead = 4096
)

// A message is what somebody hands in. Its slices are the caller's.
type message struct {
	at          time.Time
	kind        uint8 // HEP type
	transport   trace.Transport
	direction   trace.Direction
	flags       trace.Flags
	src, dst    netip.AddrPort
	payload     []byte
	correlation []byte
	keys        keys
	unread      bool  // the keys are still to be found
	own         *mark // of this message alone
	explicit    bool  // traced though nobody marked it
}

// read finds the keys of a message, which is b.
func (m *message) read(h hasher, b []byte) {
	var scanned sipmsg.Message
	sipmsg.Scan(&scanned, b)
	m.keys, m.unread = h.keys(b, &scanned), false
}

// A record is a message in the buffer.
type record struct {
	message // without its slices
	pos     uint64
	size    int           // of the payload
	extra   int           // of the correlation id, which is behind it
	queued  time.Duration // when it came in
	prev    uint64        // the record before it in its chain, as number + 1
	marks   [numKeys]*mark
}

// marked reports whether anybody wants the record.
func (r *record) marked() bool {
	return r.explicit || r.marks != [numKeys]*mark{}
}

// queue is a bounded buffer of messages in the order they came. The bytes are
// in a ring, each message in one piece. Records are numbered from 0 on; the
// lowest bits are the place.
//
//	numbers   first … taken … next     taken: with the sink, and not to be touched
//	bytes     read ……………………… write    modulo the size of the ring
//
// It is not for several goroutines at once.
type queue struct {
	ring        []byte
	read, write uint64
	records     []record // as many as a power of two
	most        int      // records
	first       uint64
	taken       uint64
	next        uint64
	chains      [buckets]uint64 // the newest record of a chain, as number + 1
}

func newQueue(size int) queue {
	most := 1
	for most*bytesPerRecord < size {
		most *= 2
	}
	return queue{ring: make([]byte, size), records: make([]record, 64), most: most}
}

func (q *queue) len() uint64 { return q.next - q.first }

func (q *queue) at(n uint64) *record { return &q.records[n&uint64(len(q.records)-1)] }

// half reports whether half of the room is taken.
func (q *queue) half() bool {
	return q.write-q.read > uint64(len(q.ring)/2) || q.len() > uint64(q.most/2)
}

// put copies m to the end, and returns nil if there is no room.
func (q *queue) put(m *message, now time.Duration) *record {
	pos, ok := q.room(len(m.payload) + len(m.correlation))
	if !ok {
		return nil
	}
	if q.len() == uint64(len(q.records)) && !q.grow() {
		return nil
	}
	b := q.ring[pos%uint64(len(q.ring)):]
	n := copy(b, m.payload)
	copy(b[n:], m.correlation)
	r := q.at(q.next)
	*r = record{message: *m, pos: pos, size: n, extra: len(m.correlation), queued: now}
	r.payload, r.correlation = nil, nil
	r.marks[byItself] = m.own
	q.write = pos + uint64(n+r.extra)
	q.link(q.next)
	q.next++
	return r
}

// link makes a record the newest of its chain.
func (q *queue) link(n uint64) {
	r := q.at(n)
	if key := r.keys.chain(); key != 0 {
		head := &q.chains[key>>1%buckets] // the lowest bit is always set
		r.prev, *head = *head, n+1
	}
}

// readLatest finds the keys of the latest messages, so that marks find them.
func (q *queue) readLatest(h hasher) {
	from := q.taken
	if q.next-from > maxRead {
		from = q.next - maxRead
	}
	q.chains = [buckets]uint64{}
	for n := from; n < q.next; n++ {
		r := q.at(n)
		if r.unread {
			at := r.pos % uint64(len(q.ring))
			r.read(h, q.ring[at:at+uint64(r.size)])
		}
		q.link(n)
	}
}

// room returns where n bytes in one piece go.
func (q *queue) room(n int) (pos uint64, ok bool) {
	size := uint64(len(q.ring))
	pos = q.write
	if at := pos % size; at+uint64(n) > size {
		pos += size - at
	}
	return pos, pos+uint64(n)-q.read <= size
}

// grow makes room for more records.
func (q *queue) grow() bool {
	if len(q.records) >= q.most {
		return false
	}
	bigger := make([]record, 2*len(q.records))
	for n := q.first; n < q.next; n++ {
		bigger[n&uint64(len(bigger)-1)] = *q.at(n)
	}
	q.records = bigger
	return true
}

// mark gives a mark to the records that have a key, as far as they are not
// with the sink yet.
func (q *queue) mark(chain uint64, which int, key uint64, m *mark) {
	at := q.chains[chain>>1%buckets]
	for range maxLook {
		if at <= q.taken {
			return
		}
		r := q.at(at - 1)
		if r.keys[which] == key {
			r.marks[which] = m
		}
		at = r.prev
	}
}

// release forgets all records that were taken.
func (q *queue) release() {
	for n := q.first; n < q.taken; n++ {
		q.at(n).marks = [numKeys]*mark{}
	}
	q.first = q.taken
	if q.first == q.next {
		q.read, q.write = 0, 0 // while little waits, little memory is touched
		return
	}
	q.read = q.at(q.first).pos
}

// event makes e the event of a record. Its slices are the ring's.
func (q *queue) event(r *record, e *trace.Event) {
	at := r.pos % uint64(len(q.ring))
	b := q.ring[at : at+uint64(r.size+r.extra)]
	*e = trace.Event{
		Time:      r.at,
		Transport: r.transport,
		Src:       r.src,
		Dst:       r.dst,
		Direction: r.direction,
		Type:      r.kind,
		Flags:     r.flags,
		Payload:   b[:r.size:r.size],
	}
	if r.extra > 0 {
		e.CorrelationID = b[r.size:]
	}
	m := together(&r.marks)
	if m == nil {
		return
	}
	e.Table, e.TracedUsers, e.Destinations = m.Table, m.Users, m.Destinations
	e.Flags |= m.Flags
	if r.extra == 0 && m.CorrelationID != "" {
		e.CorrelationID = []byte(m.CorrelationID)
	}
}
