package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// hepFile is a source of the events in a file of HEP3 packets: one that ctl
// has written, or that has gathered what an agent sends over TCP.
type hepFile struct {
	name   string
	file   io.Closer // nil for standard input
	reader *hep.Reader

	frames  trace.FrameDecoder
	lenient hep.Decoder
	packet  hep.Packet
	names   trace.Names
	events  []trace.Event
	arena   []byte // the packets of the batch, and what decoding made of them

	bad, empty, timeless int
}

// hepArena is how much is read before it is written; it has room for one more packet.
const (
	hepArena   = 1 << 20
	maxHEPSize = 1<<16 - 1
)

func openHEPFile(name string, stdin io.Reader) (*hepFile, error) {
	s := &hepFile{
		name:    name,
		lenient: hep.Decoder{Lenient: true, Private: hep.VendorSiptrace},
		arena:   make([]byte, 0, hepArena+maxHEPSize),
	}
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		in, s.file = f, f
	}
	s.reader = hep.NewReader(bufio.NewReaderSize(in, 256<<10), hep.SkipFiller())
	return s, nil
}

// Run writes the events of the file to sink.
func (s *hepFile) Run(ctx context.Context, sink trace.Sink) error {
	for ctx.Err() == nil {
		packet, err := s.reader.Next()
		if errors.Is(err, io.EOF) {
			return s.write(ctx, sink)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s, at byte %d: %w", s.name, s.reader.Offset(), err), s.write(ctx, sink))
		}
		s.add(packet)
		if len(s.events) >= importBatch || len(s.arena) >= hepArena {
			if err := s.write(ctx, sink); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds the event of a packet to the batch. One that siptrace has written
// has all that siptrace knows; any other is read as a tap reads it.
func (s *hepFile) add(packet []byte) {
	at := len(s.arena)
	s.arena = append(s.arena, packet...)
	kept := s.arena[at:len(s.arena):len(s.arena)]
	var e trace.Event
	if events, err := s.frames.Append(kept); err == nil {
		e = events[len(events)-1]
	} else {
		if s.lenient.Decode(&s.packet, kept) != nil {
			s.bad++
			return
		}
		trace.FromHEP(&e, &s.packet, &s.names)
		e = e.Clone()
	}
	switch {
	case len(e.Payload) == 0:
		s.empty++
	case e.Time.IsZero():
		s.timeless++
	default:
		s.events = append(s.events, e)
	}
}

// write writes the batch and begins the next.
func (s *hepFile) write(ctx context.Context, sink trace.Sink) error {
	var err error
	if len(s.events) > 0 {
		err = sink.Write(ctx, s.events)
	}
	clear(s.events)
	s.events, s.arena = s.events[:0], s.arena[:0]
	s.frames.Reset()
	return err
}

func (s *hepFile) position() int64 { return s.reader.Offset() }

func (s *hepFile) leftOut() string {
	var notes []string
	note := func(n int, why string) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%s left out: %s", counted(n, "packet"), why))
		}
	}
	note(s.bad, "no HEP3 that can be read")
	note(s.empty, "nothing in it")
	note(s.timeless, "no time")
	return strings.Join(notes, "; ")
}

// Close closes the file.
func (s *hepFile) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
