package sipgotap

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
)

// The keys that a message is known by, the narrowest first.
const (
	byItself      = iota // a mark that came with it; no key
	byMessage            // itself, retransmissions included
	byUnsent             // the same before it has a Via
	byTransaction        // Call-ID, From tag, CSeq number
	byDialog             // Call-ID
	numKeys
)

// keys are what a message is known by; zero is none. They are digests with a
// seed of our own, so that no stranger can make two calls look like one.
type keys [numKeys]uint64

// chain is the key by which the buffer finds a message again.
func (k *keys) chain() uint64 {
	if k[byDialog] != 0 {
		return k[byDialog]
	}
	return k[byMessage]
}

// key is the index of the key that a mark of this scope goes by.
func (s Scope) key(k keys, sent bool) int {
	switch {
	case s == Dialog && k[byDialog] != 0:
		return byDialog
	case s == Transaction && k[byTransaction] != 0:
		return byTransaction
	case sent:
		return byMessage
	}
	return byUnsent
}

// hasher makes keys.
type hasher struct{ seed maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed()} }

// keys returns what the message m, which is b, is known by.
func (h hasher) keys(b []byte, m *sipmsg.Message) (k keys) {
	from, branch := h.of(m.FromTag.Of(b)), h.of(m.ViaBranch.Of(b))
	what := h.of(m.EventMethod(b))
	if m.Response {
		what = h.mix(what, h.of(m.StatusText.Of(b)))
	}
	id := h.of(m.CallID.Of(b))
	one := h.mix(id, from, h.of(m.ToTag.Of(b)), uint64(m.CSeqNumber), what)
	if branch != 0 {
		k[byMessage] = h.mix(byMessage, one, branch)
	}
	if id == 0 {
		return k
	}
	k[byUnsent] = h.mix(byUnsent, one)
	k[byTransaction] = h.mix(byTransaction, id, from, uint64(m.CSeqNumber))
	k[byDialog] = h.mix(byDialog, id)
	return k
}

// dialog returns the keys of something that is known by its Call-ID alone.
func (h hasher) dialog(callID string) (k keys) {
	if callID != "" {
		k[byDialog] = h.mix(byDialog, maphash.String(h.seed, callID)|1)
	}
	return k
}

// of is the digest of a field: 0 if it is empty, and only then.
func (h hasher) of(b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	return maphash.Bytes(h.seed, b) | 1
}

// mix makes one digest of several; it is never 0.
func (h hasher) mix(parts ...uint64) uint64 {
	var b [8 * 8]byte
	for i, p := range parts {
		binary.NativeEndian.PutUint64(b[8*i:], p)
	}
	return maphash.Bytes(h.seed, b[:8*len(parts)]) | 1
}
