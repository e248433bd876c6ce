package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// readSize is how much of a file is read at a time.
const readSize = 256 << 10

// errFormat is returned for bytes that are no capture file.
var errFormat = errors.New("neither pcap nor pcapng, plain or gzip")

// file is a capture file of either format.
type file struct {
	packets interface {
		ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	}
	link   layers.LinkType // of pcap; pcapng has one for every packet
	zipped *rememberError  // nil if it is not
}

// openFile reads as much of r as says what it is.
func openFile(r io.Reader) (*file, error) {
	f := &file{}
	b := bufio.NewReaderSize(r, readSize)
	head, err := b.Peek(2)
	if err != nil {
		return nil, endOfHead(err)
	}
	if head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, endOfHead(err)
		}
		f.zipped = &rememberError{r: z}
		b = bufio.NewReaderSize(f.zipped, readSize)
	}
	magic, err := b.Peek(4)
	if err != nil {
		return nil, endOfHead(f.unpacked(err))
	}
	switch binary.LittleEndian.Uint32(magic) {
	case 0x0a0d0d0a:
		f.packets, err = pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	case 0xa1b2c3d4, 0xd4c3b2a1, 0xa1b23c4d, 0x4d3cb2a1:
		var p *pcapgo.Reader
		if p, err = pcapgo.NewReader(b); err == nil {
			f.packets, f.link = p, p.LinkType()
		}
	default:
		err = errFormat
	}
	if err != nil {
		return nil, endOfHead(f.unpacked(err))
	}
	return f, nil
}

// endOfHead says of a file that ends too early that it is no capture.
func endOfHead(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errFormat
	}
	return err
}

// next returns the next packet, which holds until the call after. The error is
// io.EOF at the end, and io.ErrUnexpectedEOF at an end that is none.
func (f *file) next() (data []byte, ci gopacket.CaptureInfo, link layers.LinkType, err error) {
	data, ci, err = f.packets.ZeroCopyReadPacketData()
	if err != nil {
		return nil, ci, 0, f.end(ci, err)
	}
	link = f.link
	if len(ci.AncillaryData) > 0 {
		link, _ = ci.AncillaryData[0].(layers.LinkType)
	}
	return data, ci, link, nil
}

// end looks twice at an end. The packet readers take it for a proper one if
// a pcap ends behind the head of a packet, or an unpacked pcapng ends with an
// error between two blocks.
func (f *file) end(ci gopacket.CaptureInfo, err error) error {
	if _, pcap := f.packets.(*pcapgo.Reader); pcap && err == io.EOF && ci.CaptureLength > 0 {
		return io.ErrUnexpectedEOF
	}
	return f.unpacked(err)
}

// unpacked is the error of the unpacking behind err, which may hide it, or err.
func (f *file) unpacked(err error) error {
	if f.zipped != nil && f.zipped.err != nil {
		return f.zipped.err
	}
	return err
}

// rememberError remembers what ended a reader, unless it was its proper end.
type rememberError struct {
	r   io.Reader
	err error
}

func (e *rememberError) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil && err != io.EOF {
		e.err = fmt.Errorf("unpack: %w", err)
	}
	return n, err
}

// tap calls before ahead of each read, which may wait, and counts the bytes.
type tap struct {
	r      io.Reader
	before func() error
	bytes  *atomic.Int64
}

func (t *tap) Read(b []byte) (int, error) {
	if err := t.before(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(b)
	t.bytes.Add(int64(n))
	return n, err
}
