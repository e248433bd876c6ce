package forward

import (
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// batch is what is encoded and not yet sent. It uses its memory again.
type batch struct {
	buf   []byte
	ends  []int // where in buf each datagram ends
	index []int // where in the events of Write each comes from
	views [][]byte
}

// add encodes e, which is at index.
func (b *batch) add(enc encoder, e *trace.Event, index int) error {
	buf, err := enc.append(b.buf, e)
	if err != nil {
		return err
	}
	b.buf = buf
	b.ends = append(b.ends, len(buf))
	b.index = append(b.index, index)
	return nil
}

func (b *batch) full() bool { return len(b.ends) >= batchSize || len(b.buf) >= batchBytes }

func (b *batch) empty() bool { return len(b.ends) == 0 }

// datagrams returns the datagrams, which are good until the next add.
func (b *batch) datagrams() [][]byte {
	b.views = b.views[:0]
	from := 0
	for _, to := range b.ends {
		b.views = append(b.views, b.buf[from:to:to])
		from = to
	}
	return b.views
}

func (b *batch) reset() { b.buf, b.ends, b.index = b.buf[:0], b.ends[:0], b.index[:0] }
