package hep

import (
	"encoding/binary"
	"io"
	"time"
)

const (
	firstBuffer = 4 << 10
	maxBuffer   = 64 << 10
	idleReads   = 100 // reads of nothing before giving up
)

// A Reader takes version 3 packets off a stream, as HEP comes over TCP and
// TLS. It holds at most 64 KiB of the stream. A Reader is for one goroutine.
type Reader struct {
	src        io.Reader
	buf        []byte
	from, to   int   // buf[from:to] is read and not yet given out
	err        error // what the source said last, not yet told; io.EOF stays
	offset     int64 // of buf[from] in the stream
	skipped    int64
	skipFiller bool
	resync     resync
	deadline   deadline
}

// ReaderOption is an option of NewReader.
type ReaderOption func(*Reader)

// Resync makes a Reader that has lost step look for the next packet instead of
// giving up, until it has skipped budget bytes since the last good packet.
// Where it looks, a packet counts only if its chunks fill it exactly. A payload
// may hold a whole HEP packet, so after a loss one such may be taken for real.
func Resync(budget int) ReaderOption {
	return func(r *Reader) { r.resync.budget = budget }
}

// SkipFiller makes a Reader skip CR, LF and NUL between packets.
func SkipFiller() ReaderOption {
	return func(r *Reader) { r.skipFiller = true }
}

// FrameDeadline gives each packet d from the first of its bytes that is seen
// to its last; between packets a Reader waits for as long as it takes. conn is
// where the stream comes from, as a net.Conn.
func FrameDeadline(conn interface{ SetReadDeadline(time.Time) error }, d time.Duration) ReaderOption {
	return func(r *Reader) { r.deadline = deadline{conn: conn, d: d} }
}

// NewReader returns a Reader on src. It reads nothing yet.
func NewReader(src io.Reader, options ...ReaderOption) *Reader {
	r := &Reader{src: src}
	for _, o := range options {
		o(r)
	}
	return r
}

// Offset is the number of bytes of the stream before what Next gives next.
func (r *Reader) Offset() int64 { return r.offset }

// Skipped is the number of bytes of the stream that were in no packet, filler
// included.
func (r *Reader) Skipped() int64 { return r.skipped }

// Next returns the next whole packet, which is valid until the call after. Of
// the packet only the head has been looked at: a bad chunk is Decode's to
// find, and costs one packet, not the stream.
//
// The error is io.EOF where the stream ends between packets, and
// io.ErrUnexpectedEOF where it ends inside one; a *SyncError, which is
// ErrSync, where no packet begins; else what the source returned, after which
// Next may be called again.
func (r *Reader) Next() ([]byte, error) {
	if r.resync.lost {
		return r.search()
	}
	if err := r.filler(); err != nil {
		return nil, err
	}
	if err := r.fill(headSize); err != nil {
		return nil, r.atEnd(err)
	}
	head := r.buf[r.from:r.to]
	total := int(binary.BigEndian.Uint16(head[4:]))
	if !isHEP3(head) || total < headSize {
		return r.outOfStep()
	}
	if err := r.fill(total); err != nil {
		return nil, r.atEnd(err)
	}
	return r.take(total), nil
}

// filler skips what may stand between packets.
func (r *Reader) filler() error {
	for r.skipFiller {
		if err := r.fill(1); err != nil {
			return err
		}
		if c := r.buf[r.from]; c != '\r' && c != '\n' && c != 0 {
			return nil
		}
		r.skip(1)
	}
	return nil
}

// outOfStep is Next where no packet begins.
func (r *Reader) outOfStep() ([]byte, error) {
	if r.resync.budget <= 0 {
		return nil, r.syncError()
	}
	r.resync.lost = true
	r.resync.cause = r.syncError()
	return r.search()
}

func (r *Reader) syncError() error {
	return &SyncError{Offset: r.offset, Hint: Guess(r.buf[r.from:r.to])}
}

// take gives out the next n bytes, which are there.
func (r *Reader) take(n int) []byte {
	b := r.buf[r.from : r.from+n : r.from+n]
	r.from += n
	r.offset += int64(n)
	r.deadline.done()
	return b
}

// skip leaves out the next n bytes, which are there.
func (r *Reader) skip(n int) {
	r.from += n
	r.offset += int64(n)
	r.skipped += int64(n)
}

// fill reads until the next n bytes are there.
func (r *Reader) fill(n int) error {
	for idle := 0; r.to-r.from < n; idle++ {
		if err := r.err; err != nil {
			if err != io.EOF {
				r.err = nil
			}
			return err
		}
		if idle == idleReads {
			return io.ErrNoProgress
		}
		r.makeRoom(n)
		if err := r.deadline.before(r.to > r.from); err != nil {
			return err
		}
		var got int
		got, r.err = r.src.Read(r.buf[r.to:])
		if r.to += got; got > 0 {
			idle = 0
		}
	}
	return nil
}

// makeRoom makes room for n bytes and one more read. The buffer grows for a
// packet that needs it, and for a source that fills it in one read.
func (r *Reader) makeRoom(n int) {
	full := r.to == len(r.buf)
	if r.from == r.to {
		r.from, r.to = 0, 0
	}
	if r.from+n <= len(r.buf) && !full {
		return
	}
	size := max(len(r.buf), firstBuffer)
	if full && len(r.buf) > 0 {
		size *= 2
	}
	for size < n {
		size *= 2
	}
	to := r.buf
	if size = min(size, maxBuffer); size > len(r.buf) {
		to = make([]byte, size)
	}
	r.to = copy(to, r.buf[r.from:r.to])
	r.buf, r.from = to, 0
}

// atEnd turns the end of the stream into what it means here.
func (r *Reader) atEnd(err error) error {
	if err == io.EOF && r.to > r.from {
		return io.ErrUnexpectedEOF
	}
	return err
}
