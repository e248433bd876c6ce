package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Options say how a file is opened. The zero value makes a new one.
type Options struct {
	Overwrite bool      // replace a file that is there
	Append    bool      // go on behind what is there, which must be of the same format; make the file if it is not
	Stdout    io.Writer // what "-" is; nil is os.Stdout
}

// Counts tell what became of the events given to a [File].
type Counts struct {
	Events  int   // written
	LeftOut int   // not for this format: what is no SIP has no place in a capture
	Cut     int   // of those written, too long to be written whole
	Bytes   int64 // written, head included
}

// reasonUnwritable is why an event is rejected.
const reasonUnwritable = "cannot be written in this format"

// errLeftOut is what an encoder returns for an event that has no place in its format.
var errLeftOut = errors.New("left out")

// An encoder writes the form of a file.
type encoder interface {
	// head begins a file, or a part of one behind others. The buffer is that
	// of every event, too.
	head(b *buffer, appending bool) error
	// check reports why a file that begins so cannot be appended to.
	check(begin []byte) error
	// event appends e, or leaves b as it was and says why.
	event(b *buffer, e *trace.Event) (cut bool, err error)
}

// buffer gathers what one Write puts in the file.
type buffer struct{ b []byte }

func (b *buffer) Write(p []byte) (int, error) {
	b.b = append(b.b, p...)
	return len(p), nil
}

// File is a sink that writes a file. What Write has accepted the operating
// system has; Close brings it to the disk. A Write that fails leaves the file
// as it was, unless it is a pipe: between two Writes a file is always whole.
// It is for one goroutine.
type File struct {
	target  Target
	encoder encoder
	out     io.Writer
	file    *os.File // nil for standard output
	size    int64    // of the file, while it is one
	buffer  buffer
	counts  Counts
}

// Create opens the file of a target. Without Overwrite or Append an existing
// one is refused with an error that is [ErrExists].
func Create(t Target, o Options) (*File, error) {
	f := &File{target: t, encoder: newEncoder(t.Format)}
	var err error
	appending := false
	if t.Stdout() {
		f.out = o.Stdout
		if f.out == nil {
			f.out = os.Stdout
		}
	} else if appending, err = f.open(o); err != nil {
		return nil, err
	}
	if err = f.encoder.head(&f.buffer, appending); err == nil {
		err = f.flush()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", t, err), f.Close())
	}
	return f, nil
}

func newEncoder(format Format) encoder {
	switch format {
	case Pcap:
		return &pcapEncoder{packets: newPackets()}
	case Pcapng:
		return &pcapngEncoder{packets: newPackets()}
	case HEP:
		return &hepEncoder{}
	case Text:
		return textEncoder{}
	}
	return jsonEncoder{}
}

// open opens the file and reports whether there is something in it to append to.
func (f *File) open(o Options) (appending bool, err error) {
	flags := os.O_CREATE | os.O_RDWR
	switch {
	case o.Append:
	case o.Overwrite:
		flags |= os.O_TRUNC
	default:
		flags |= os.O_EXCL
	}
	file, err := os.OpenFile(f.target.Path, flags, 0o640) // it holds people's calls
	if errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("%s %w", f.target.Path, ErrExists)
	}
	if err != nil {
		return false, err
	}
	f.file, f.out = file, file
	if !o.Append {
		return false, nil
	}
	if f.size, err = file.Seek(0, io.SeekEnd); err == nil && f.size > 0 {
		err = f.checkBegin()
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("append to %s: %w", f.target.Path, err), f.Close())
	}
	return f.size > 0, nil
}

// begin is as much of a file as tells what it is.
const begin = 24

// checkBegin looks at what the file begins with.
func (f *File) checkBegin() error {
	head := make([]byte, begin)
	n, err := f.file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	return f.encoder.check(head[:n])
}

// Counts tell what was written so far.
func (f *File) Counts() Counts { return f.counts }

// Write is what [trace.Sink] promises. Events that the format cannot carry
// come back as [trace.Rejected]; those that have no place in it are counted.
func (f *File) Write(_ context.Context, events []trace.Event) error {
	f.buffer.b = f.buffer.b[:0]
	var rejected trace.Rejected
	now := f.counts
	for i := range events {
		cut, err := f.encoder.event(&f.buffer, &events[i])
		switch {
		case errors.Is(err, errLeftOut):
			now.LeftOut++
			continue
		case err != nil:
			rejected = append(rejected, trace.Rejection{Index: i, Reason: reasonUnwritable, Err: err})
			continue
		case cut:
			now.Cut++
		}
		now.Events++
	}
	if err := f.flush(); err != nil {
		return fmt.Errorf("%s: %w", f.target, err)
	}
	now.Bytes = f.counts.Bytes
	f.counts = now
	if len(rejected) > 0 {
		return rejected
	}
	return nil
}

// flush writes the buffer, or leaves the file as it was.
func (f *File) flush() error {
	n, err := f.out.Write(f.buffer.b)
	if err == nil {
		f.size += int64(n)
		f.counts.Bytes += int64(n)
		return nil
	}
	if f.file != nil && n > 0 {
		if undo := f.file.Truncate(f.size); undo != nil {
			return errors.Join(err, undo)
		}
		_, undo := f.file.Seek(f.size, io.SeekStart)
		return errors.Join(err, undo)
	}
	return err
}

// Close brings the file to the disk and closes it.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	var err error
	if f.regular() { // a pipe or a device has no disk
		err = f.file.Sync()
	}
	return errors.Join(err, f.file.Close())
}

func (f *File) regular() bool {
	info, err := f.file.Stat()
	return err == nil && info.Mode().IsRegular()
}
