package hep

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"slices"
)

const defaultMaxInflate = 1 << 20

// inflater is what a Decoder keeps for compressed payloads, made when the
// first one comes.
type inflater struct {
	in   bytes.Reader
	raw  io.ReadCloser // a flate.Resetter
	gzip gzip.Reader
	out  []byte
}

// inflate fills p.Payload from p.CompressedPayload.
func (d *Decoder) inflate(p *Packet) error {
	if d.inflater == nil {
		d.inflater = new(inflater)
	}
	limit := d.MaxInflate
	if limit == 0 {
		limit = defaultMaxInflate
	}
	out, err := d.inflater.inflate(p.CompressedPayload, limit)
	if err != nil {
		return fmt.Errorf("compressed payload: %w", err)
	}
	p.Payload = out
	return nil
}

// inflate inflates b, which is gzip, zlib or bare deflate, as its first two
// bytes tell, to at most limit bytes. The result holds until the next call.
func (f *inflater) inflate(b []byte, limit int) ([]byte, error) {
	f.in.Reset(b)
	defer f.in.Reset(nil) // lets go of b
	var err error
	switch {
	case len(b) >= 2 && b[0] == 0x1f && b[1] == 0x8b:
		err = f.gunzip(limit)
	case len(b) >= 2 && b[0]&0x0f == 8 && binary.BigEndian.Uint16(b)%31 == 0:
		err = f.zlib(limit)
	default:
		err = f.deflate(limit)
	}
	switch {
	case errors.Is(err, ErrInflate):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInflate, err)
	case f.in.Len() > 0:
		return nil, fmt.Errorf("%w: %d bytes behind its end", ErrInflate, f.in.Len())
	}
	return f.out[:len(f.out):len(f.out)], nil
}

// gunzip reads the one gzip member that f.in is.
func (f *inflater) gunzip(limit int) error {
	if err := f.gzip.Reset(&f.in); err != nil {
		return err
	}
	f.gzip.Multistream(false)
	return f.read(&f.gzip, limit)
}

// zlib reads a zlib stream, whose frame is two bytes before and a checksum
// after bare deflate.
func (f *inflater) zlib(limit int) error {
	_, _ = f.in.ReadByte()
	if flags, _ := f.in.ReadByte(); flags&0x20 != 0 {
		return errors.New("zlib with a preset dictionary")
	}
	if err := f.deflate(limit); err != nil {
		return err
	}
	var sum [4]byte
	n, _ := f.in.Read(sum[:])
	switch {
	case n < len(sum):
		return io.ErrUnexpectedEOF
	case binary.BigEndian.Uint32(sum[:]) != adler32.Checksum(f.out):
		return errors.New("zlib checksum wrong")
	}
	return nil
}

// deflate reads bare deflate.
func (f *inflater) deflate(limit int) error {
	if f.raw == nil {
		f.raw = flate.NewReader(&f.in)
	} else if err := f.raw.(flate.Resetter).Reset(&f.in, nil); err != nil {
		return err
	}
	return f.read(f.raw, limit)
}

// read reads r to its end into f.out.
func (f *inflater) read(r io.Reader, limit int) error {
	f.out = f.out[:0]
	for {
		if len(f.out) == cap(f.out) {
			f.out = slices.Grow(f.out, max(4096, len(f.out)))
		}
		n, err := r.Read(f.out[len(f.out):cap(f.out)])
		f.out = f.out[:len(f.out)+n]
		switch {
		case len(f.out) > limit:
			return ErrTooLarge
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}
