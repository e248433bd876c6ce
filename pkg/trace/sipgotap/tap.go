package sipgotap

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// Options say how to trace. The zero value is good.
type Options struct {
	Agent  trace.Agent // who traces, as every event says
	Buffer int         // bytes of memory for messages the sink has not taken yet (16 MiB)

	// Selective traces only what Message has marked.
	Selective bool

	// Settle is how long a message waits in the buffer for a mark (200 ms):
	// a handler that calls Message later than that marks what comes then, but
	// no more the message it was called for. Negative is not at all.
	Settle time.Duration

	// MaxMarks bounds the marks kept (65,536): the oldest make room.
	MaxMarks int

	// Ports are the transports of ports, local or remote, on connections that
	// are not wrapped: {5061: trace.TLS}. Where none is given, the topmost
	// Via of the first message tells TCP from TLS and WS from WSS.
	Ports map[uint16]trace.Transport

	// Flush is how long Run goes on when its context has ended (2 s).
	Flush time.Duration

	Log *slog.Logger // nil is silent
}

func (o Options) withDefaults() Options {
	o.Buffer = max(cmp.Or(o.Buffer, 16<<20), minBuffer)
	o.Settle = max(cmp.Or(o.Settle, 200*time.Millisecond), 0)
	o.MaxMarks = max(cmp.Or(o.MaxMarks, 1<<16), 1)
	o.Ports = maps.Clone(o.Ports)
	o.Flush = cmp.Or(o.Flush, 2*time.Second)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	return o
}

// A Tap is a [trace.Source] of what a program sends and receives. It is for
// use by any number of goroutines.
type Tap struct {
	opts    Options
	log     *slog.Logger
	hash    hasher
	started time.Time
	wake    chan struct{} // size 1: there is something for Run
	running atomic.Bool
	marking atomic.Bool // messages are read as they come; changes once, with mu held

	mu    sync.Mutex // held for moments: whoever sends or receives may wait for it
	queue queue
	marks marks
	count Stats
	home  netip.AddrPort // our own side of the latest message
	udp   *transport

	keepAlives, garbage, faults atomic.Uint64

	wrapped registry
	dialled dialled

	// Of the one Run.
	routes routes
	batch  []trace.Event
	passed uint64    // unmarked messages between those of batch
	unsaid int       // events the sink was not complained about for
	silent time.Time // until then
}

// New returns a tap. It traces from the first socket that is wrapped, or from
// Install on; what Run has not been started for waits in the buffer.
func New(o Options) *Tap {
	o = o.withDefaults()
	t := &Tap{
		opts:    o,
		log:     o.Log,
		hash:    newHasher(),
		started: time.Now(),
		wake:    make(chan struct{}, 1),
		queue:   newQueue(o.Buffer),
		home:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0),
		marks:   newMarks(o.MaxMarks),
		udp:     knownTransport(trace.UDP),
		wrapped: newRegistry(),
		dialled: newDialled(),
		routes:  newRoutes(),
		batch:   make([]trace.Event, 0, batchEvents),
	}
	t.marking.Store(o.Selective)
	return t
}

// Stats are counted from New on. Always
//
//	Seen = Dropped + Unmarked + Written + Refused + Waiting
type Stats struct {
	Seen     uint64 // messages and log lines that came by
	Dropped  uint64 // lost, for the buffer was full
	Unmarked uint64 // let go: the tap is selective, and nobody marked them
	Written  uint64 // the sink has them
	Refused  uint64 // the sink refused them for good
	Waiting  uint64 // in the buffer now

	KeepAlives   uint64 // pings and pongs, which are no messages
	GarbageBytes uint64 // on streams: what belongs to no message
	Marks        uint64 // marks kept now
	MarksEvicted uint64 // marks that had to make room
	Faults       uint64 // panics of the tap that the program was kept from
}

// Stats returns what has been counted so far.
func (t *Tap) Stats() Stats {
	t.mu.Lock()
	s := t.count
	s.Waiting = t.queue.len()
	s.Marks, s.MarksEvicted = t.marks.len(), t.marks.evicted
	t.mu.Unlock()
	s.KeepAlives, s.GarbageBytes, s.Faults = t.keepAlives.Load(), t.garbage.Load(), t.faults.Load()
	return s
}

// Dropped returns how many messages were lost because the buffer was full.
func (t *Tap) Dropped() uint64 { return t.Stats().Dropped }

// Message marks msg, or its transaction, or its dialog: what has been seen of
// it within Options.Settle, and all that comes until the mark ends. Marks add
// up; where two name a table or a correlation id, the narrower scope counts, then
// the later call. msg may be a message received, or one that is about to be sent.
func (t *Tap) Message(msg sip.Message, m Mark) {
	t.MessageBytes([]byte(msg.String()), m)
}

// MessageBytes is Message for a message as it is on the wire.
func (t *Tap) MessageBytes(msg []byte, m Mark) {
	var scanned sipmsg.Message
	sipmsg.Scan(&scanned, msg)
	k := t.hash.keys(msg, &scanned)
	which := m.Scope.key(k, !scanned.ViaBranch.Empty())
	if k[which] == 0 {
		return // nothing to know it by
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.marking.Swap(true) {
		t.queue.readLatest(t.hash)
	}
	now := t.now()
	kept := t.marks.add(k[which], newMark(m, now), now)
	t.queue.mark(k.chain(), which, k[which], kept)
}

// Log puts a line of text beside the messages of a call: a HEP event of type
// 100 with the Call-ID as its correlation id, from and to this program's own
// address. The marks of the dialog are its marks too; it is traced even
// where nothing is marked.
func (t *Tap) Log(callID, text string) {
	t.put(&message{
		at:          time.Now(),
		kind:        trace.TypeLog,
		transport:   trace.UDP,
		payload:     []byte(text),
		correlation: []byte(callID),
		keys:        t.hash.dialog(callID),
		explicit:    true,
	})
}

// Trace puts in an event of the program's own making: a message that went past
// sipgo. Agent and id are the tap's, and the time and the type where they are
// missing; VLAN, Chunks and Rule are not kept. It is traced even where nothing
// is marked.
func (t *Tap) Trace(e trace.Event) {
	m := message{
		at:          e.Time,
		kind:        cmp.Or(e.Type, trace.TypeSIP),
		transport:   e.Transport,
		direction:   e.Direction,
		flags:       e.Flags,
		src:         e.Src,
		dst:         e.Dst,
		payload:     e.Payload,
		correlation: e.CorrelationID,
		explicit:    true,
	}
	if m.at.IsZero() {
		m.at = time.Now()
	}
	if m.kind == trace.TypeSIP {
		var scanned sipmsg.Message
		sipmsg.Scan(&scanned, e.Payload)
		m.keys = t.hash.keys(e.Payload, &scanned)
	}
	if e.Table != "" || len(e.TracedUsers) > 0 || len(e.Destinations) > 0 {
		m.own = newMark(Mark{Table: e.Table, Users: e.TracedUsers, Destinations: e.Destinations}, 0)
	}
	t.put(&m)
}

// now is the time since New, which never jumps.
func (t *Tap) now() time.Duration { return time.Since(t.started) }

// survive keeps a fault of the tap from ending the program it is a guest of.
func (t *Tap) survive() {
	if recover() != nil {
		t.faults.Add(1)
	}
}
