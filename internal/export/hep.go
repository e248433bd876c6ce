package export

import (
	"bytes"
	"errors"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// hepEncoder writes what is on the bus: HEP3 packets with siptrace's own
// chunks, so that reading the file gives the very same events.
type hepEncoder struct{ decoder trace.FrameDecoder }

func (*hepEncoder) head(*buffer, bool) error { return nil }

func (*hepEncoder) check(begin []byte) error {
	if !bytes.HasPrefix(begin, []byte("HEP3")) {
		return errors.New("no file of HEP3 packets")
	}
	return nil
}

// maybeCut is the size from which on a payload may have had to be cut.
const maybeCut = 60_000

func (c *hepEncoder) event(b *buffer, e *trace.Event) (cut bool, err error) {
	at := len(b.b)
	b.b, err = trace.AppendEvent(b.b, e)
	if err != nil || len(e.Payload) < maybeCut || e.Flags.Has(trace.Truncated) {
		return false, err
	}
	written, err := c.decoder.Decode(b.b[at:])
	if err != nil {
		b.b = b.b[:at]
		return false, err
	}
	return written[0].Flags.Has(trace.Truncated), nil
}
