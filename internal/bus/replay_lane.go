package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A lane is one stream of a replay: where it is there.
type lane struct {
	Stretch
	next uint64 // the first frame that is not written
	read uint64 // the first frame that is not in the batch

	msgs   jetstream.MessagesContext // nil is not open
	head   jetstream.Msg             // frame read, which is the next one for the batch; nil is none
	stored time.Time                 // when it was
}

// open begins to read at the first frame that is not written. All lanes
// together read ahead as much as one alone would, if they are not very many.
// It returns how many frames are gone if that is all of them.
func (l *lane) open(ctx context.Context, c *Conn, lanes int) (discarded uint64, err error) {
	l.head, l.read = nil, l.next
	if l.read > l.Last {
		return 0, nil
	}
	cons, err := c.js.OrderedConsumer(ctx, l.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       l.next,
		InactiveThreshold: tailInactive,
	})
	if err != nil {
		return 0, err
	}
	if cons.CachedInfo().NumPending == 0 { // and yet there were some
		return l.skip(l.Last + 1), nil
	}
	l.msgs, err = cons.Messages(jetstream.PullMaxBytes(c.ahead(tailAhead / lanes)))
	return 0, err
}

func (l *lane) close() {
	if l.msgs != nil {
		l.msgs.Stop()
		l.msgs, l.head = nil, nil
	}
}

// silence is how long a frame that should be there may take to come.
const silence = 10 * time.Second

// errSilent means that a frame did not come that should be there.
var errSilent = errors.New("no frame comes")

// fetch waits for the next frame of the stretch, if it has not got that
// already, and returns how many the stream has discarded before it. At the end
// of the stretch there is no head.
func (l *lane) fetch(ctx context.Context) (discarded uint64, err error) {
	if l.head != nil || l.read > l.Last {
		return 0, nil
	}
	wait, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	msg, err := l.msgs.Next(jetstream.NextContext(wait))
	if wait.Err() != nil && ctx.Err() == nil {
		return 0, errSilent
	}
	if err != nil {
		return 0, err
	}
	md, err := msg.Metadata()
	if err != nil {
		return 0, err
	}
	seq := md.Sequence.Stream
	discarded = l.skip(min(seq, l.Last+1))
	if seq <= l.Last {
		l.head, l.stored = msg, md.Timestamp
	}
	return discarded, nil
}

// taken is told that the head is in the batch.
func (l *lane) taken() { l.head, l.read = nil, l.read+1 }

// skip goes on at a frame; those before it are not in the stream any more.
func (l *lane) skip(to uint64) (discarded uint64) {
	if to <= l.read {
		return 0
	}
	discarded = to - l.read
	l.read = to
	return discarded
}
