package rules

import (
	"math/rand/v2"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// dialogs are the Call-IDs that rules follow, in a table of fixed size. Its
// memory is that of the entries in use: about 140 bytes for each with a hundred
// rules, 240 with 512, and up to 800 more where rules take users from messages.
//
// Entries are in two chains, each in the order of their last message: those
// whose call may go on, and those whose call seems to be over. When the table
// is full the oldest that is over goes first. Where nothing is over, the one
// that has been silent longest goes.
type dialogs struct {
	max  int
	idle time.Duration
	seed uint64 // strangers choose Call-IDs

	index   map[xxh3.Uint128]int32
	entries []entry
	free    int32 // the first that is not in use; linked by next
	chains  [2]chain
	width   int      // words that hold a bit for every rule
	rules   []uint64 // for each entry the rules that follow it, then those that must not

	evicted, expired uint64
}

// An entry is one Call-ID.
type entry struct {
	key        xxh3.Uint128
	last       time.Duration // when its last message came
	prev, next int32
	phase      phase
	session    bool // an INVITE or SUBSCRIBE was seen
	users      []taken
}

// taken is a user that a rule has taken from the message it selected.
type taken struct {
	rule int32
	user string
}

// A chain links entries, the newest first.
type chain struct{ first, last int32 }

// A phase says whether a call may go on.
type phase uint8

const (
	goingOn phase = iota
	over
)

const none int32 = -1

func newDialogs(max int, idle time.Duration) *dialogs {
	return &dialogs{
		max: max, idle: idle, seed: rand.Uint64(),
		index: make(map[xxh3.Uint128]int32),
		free:  none, chains: [2]chain{{none, none}, {none, none}},
	}
}

// len is how many Call-IDs are followed.
func (d *dialogs) len() int { return len(d.index) }

// key is what a Call-ID is found by.
func (d *dialogs) key(callID string) xxh3.Uint128 { return xxh3.HashString128Seed(callID, d.seed) }

// find returns the entry of a key, or none.
func (d *dialogs) find(k xxh3.Uint128, now time.Duration) int32 {
	i, ok := d.index[k]
	if !ok {
		return none
	}
	if d.silent(i, now) {
		d.expired++
		d.remove(i)
		return none
	}
	return i
}

// silent reports whether an entry's time is up.
func (d *dialogs) silent(i int32, now time.Duration) bool { return now-d.entries[i].last >= d.idle }

// following are the rules that follow an entry.
func (d *dialogs) following(i int32) bits { return d.both(i)[:d.width] }

// barred are the rules that must not begin to follow an entry.
func (d *dialogs) barred(i int32) bits { return d.both(i)[d.width:] }

func (d *dialogs) both(i int32) bits {
	at := 2 * int(i) * d.width
	return d.rules[at : at+2*d.width]
}

// add makes an entry for a key that has none, if need be in place of another.
func (d *dialogs) add(k xxh3.Uint128, now time.Duration) int32 {
	if len(d.index) >= d.max {
		oldest := d.chains[over].last
		if oldest == none {
			oldest = d.chains[goingOn].last
		}
		if d.silent(oldest, now) {
			d.expired++
		} else {
			d.evicted++
		}
		d.remove(oldest)
	}
	i := d.free
	if i != none {
		d.free = d.entries[i].next
	} else {
		i = int32(len(d.entries))
		d.entries = append(d.entries, entry{})
		for range 2 * d.width {
			d.rules = append(d.rules, 0)
		}
	}
	d.entries[i] = entry{key: k, last: now}
	d.index[k] = i
	d.link(i, goingOn)
	return i
}

// touch notes that a message has come, and what it says of the call.
func (d *dialogs) touch(i int32, m *message, now time.Duration) {
	e := &d.entries[i]
	e.last = now
	p := e.phase
	switch {
	case !d.following(i).any():
		p = over
	case m.scan != nil:
		p = e.progress(m.scan, m.words[method])
	}
	d.unlink(i)
	d.link(i, p)
}

// progress says whether the call may go on behind a message.
func (e *entry) progress(scan *sipmsg.Message, method string) phase {
	switch method {
	case "BYE", "CANCEL":
		return over
	case "INVITE", "SUBSCRIBE":
		if scan.Status >= 300 {
			return over
		}
		e.session = true
		return goingOn
	}
	if scan.Status >= 200 && !e.session {
		return over
	}
	return e.phase
}

// expire removes up to most entries that have been silent for too long.
func (d *dialogs) expire(now time.Duration, most int) {
	for p := range d.chains {
		for ; most > 0 && d.chains[p].last != none && d.silent(d.chains[p].last, now); most-- {
			d.expired++
			d.remove(d.chains[p].last)
		}
	}
}

// remove gives an entry back.
func (d *dialogs) remove(i int32) {
	d.unlink(i)
	delete(d.index, d.entries[i].key)
	clear(d.both(i))
	d.entries[i] = entry{next: d.free}
	d.free = i
}

// remap moves every entry from one set of rules to the next: to[old] is the new
// number of a rule, or none. Entries that no rule follows any more go.
func (d *dialogs) remap(to []int32, width int) {
	was := dialogs{width: d.width, rules: d.rules}
	d.rules, d.width = make([]uint64, 2*width*len(d.entries)), width
	for p := range d.chains {
		for i := d.chains[p].first; i != none; {
			next := d.entries[i].next
			move(d.following(i), was.following(i), to)
			move(d.barred(i), was.barred(i), to)
			d.entries[i].remap(to)
			if !d.both(i).any() {
				d.remove(i)
			}
			i = next
		}
	}
}

// move sets in dst the bits of src under their new numbers.
func move(dst, src bits, to []int32) {
	for n := src.next(0); n >= 0; n = src.next(n + 1) {
		if to[n] != none {
			dst.set(int(to[n]))
		}
	}
}

// remap keeps the users of the rules that are still there.
func (e *entry) remap(to []int32) {
	var kept []taken
	for _, t := range e.users {
		if m := to[t.rule]; m != none {
			kept = append(kept, taken{m, t.user})
		}
	}
	e.users = kept
}

func (d *dialogs) link(i int32, p phase) {
	e, l := &d.entries[i], &d.chains[p]
	e.phase, e.prev, e.next = p, none, l.first
	if l.first != none {
		d.entries[l.first].prev = i
	} else {
		l.last = i
	}
	l.first = i
}

func (d *dialogs) unlink(i int32) {
	e := &d.entries[i]
	l := &d.chains[e.phase]
	if e.prev != none {
		d.entries[e.prev].next = e.next
	} else {
		l.first = e.next
	}
	if e.next != none {
		d.entries[e.next].prev = e.prev
	} else {
		l.last = e.prev
	}
}
