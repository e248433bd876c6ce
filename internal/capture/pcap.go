package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipmsg"
	"golang.org/x/term"
)

const (
	defaultBatch = 256

	// arenaSize holds the payloads of a batch. It is larger than any one.
	arenaSize = 512 << 10
)

// ErrCut says that a capture file ends inside a packet, as one does whose
// writer was stopped. What is before that has been written to the sink.
var ErrCut = errors.New("file is cut short")

// PcapOptions are what a source of a capture file may be told. The zero value
// is good.
type PcapOptions struct {
	Batch int // the most events in one Write; 0 is 256
}

// input is what a capture is read from: a file.
type input interface {
	io.ReadCloser
	SetReadDeadline(time.Time) error
}

// Pcap is a source of the SIP in a capture file. It is for one Run.
type Pcap struct {
	name   string
	f      input
	size   int64
	file   *file // nil until the head of the file has been read
	counts counts
	undo   func() // of the metrics
	log    *slog.Logger

	decoder decoder
	sink    trace.Sink      // of Run
	ctx     context.Context // of Run
	events  []trace.Event
	arena   []byte // their payloads
	refused error  // what the sink said
}

// OpenPcap opens a capture file, pcap or pcapng, plain or packed by gzip; "-"
// is standard input. Close it.
func OpenPcap(path string, o PcapOptions, reg prometheus.Registerer, log *slog.Logger) (*Pcap, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	p, err := openPcap(path, f, o, reg, log)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("capture file %s: %w", path, err)
	}
	return p, nil
}

// open opens a file. Reads of standard input can be interrupted if it is a
// pipe.
func open(path string) (*os.File, error) {
	if path != "-" {
		return os.Open(path)
	}
	if term.IsTerminal(int(syscall.Stdin)) {
		return nil, errors.New("standard input is a terminal, try: tcpdump -U -w - udp port 5060 | …")
	}
	if err := syscall.SetNonblock(syscall.Stdin, true); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return os.NewFile(uintptr(syscall.Stdin), "standard input"), nil
}

func openPcap(path string, f *os.File, o PcapOptions, reg prometheus.Registerer, log *slog.Logger) (*Pcap, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	url := schemePcap + ":" + path
	p := newPcap(f.Name(), f, o, log.With("source", url))
	if info.Mode().IsRegular() { // what may wait for its writer is for Run to read
		p.size = info.Size()
		if err := p.head(); err != nil {
			return nil, err
		}
	}
	p.undo, err = register(reg, p.counts.metrics(url))
	return p, err
}

func newPcap(name string, f input, o PcapOptions, log *slog.Logger) *Pcap {
	if o.Batch <= 0 {
		o.Batch = defaultBatch
	}
	p := &Pcap{
		name:   name,
		f:      f,
		log:    log,
		events: make([]trace.Event, 0, o.Batch),
		arena:  make([]byte, 0, arenaSize),
	}
	p.decoder.fragments = newFragments(
		func(parts int) { p.counts.joined.Add(int64(parts)) },
		func(why skip, parts int) { p.counts.skipped[why].Add(int64(parts)) },
	)
	return p
}

// head reads the head of the file, once.
func (p *Pcap) head() (err error) {
	if p.file == nil {
		p.file, err = openFile(&tap{r: p.f, before: p.write, bytes: &p.counts.bytes})
	}
	return err
}

// Progress tells how far Run is. It may be asked at any time.
func (p *Pcap) Progress() Progress { return p.counts.progress(p.size) }

// Close closes the file. Run must have returned.
func (p *Pcap) Close() error {
	p.undo()
	return p.f.Close()
}

// Run writes the SIP over UDP in the file to sink, in the order of the file,
// and returns nil at its end or when ctx is done. It waits for the sink for as
// long as that takes, and returns its error. A file that ends inside a packet
// is [ErrCut].
func (p *Pcap) Run(ctx context.Context, sink trace.Sink) error {
	p.ctx, p.sink = ctx, sink
	stop := context.AfterFunc(ctx, func() { _ = p.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err := p.head()
	if err == nil {
		err = p.packets()
	}
	p.decoder.fragments.giveUpAll()
	p.report()
	switch {
	case ctx.Err() != nil:
		return nil
	case p.refused != nil:
		return fmt.Errorf("hand on packets of %s: %w", p.name, p.refused)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %w behind packet %d", p.name, ErrCut, p.counts.packets.Load())
	case err != nil:
		return fmt.Errorf("read %s behind packet %d: %w", p.name, p.counts.packets.Load(), err)
	}
	return nil
}

// packets reads packet after packet. What it has read is written, also where
// the file goes wrong.
func (p *Pcap) packets() error {
	for p.ctx.Err() == nil {
		data, ci, link, err := p.file.next()
		if err != nil {
			if werr := p.write(); werr != nil {
				return werr
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
		p.counts.packets.Add(1)
		d, why := p.decoder.decode(link, data, ci.Timestamp)
		if d != nil && !sipmsg.IsSIP(d.payload) {
			why = skipNotSIP
		}
		if why != taken {
			p.counts.skipped[why].Add(1)
			continue
		}
		if d == nil {
			continue
		}
		if err := p.add(d, ci.Timestamp); err != nil {
			return err
		}
	}
	return nil
}

// add adds an event to the batch.
func (p *Pcap) add(d *datagram, at time.Time) error {
	if len(p.events) == cap(p.events) || len(p.arena)+len(d.payload) > arenaSize {
		if err := p.write(); err != nil {
			return err
		}
	}
	if at.IsZero() {
		at = time.Now() // a simple packet block of pcapng has no time
	}
	from := len(p.arena)
	p.arena = append(p.arena, d.payload...)
	e := trace.Event{
		Time:      at,
		Transport: trace.UDP,
		Src:       d.src,
		Dst:       d.dst,
		Type:      trace.TypeSIP,
		VLAN:      d.vlan,
		Payload:   p.arena[from:len(p.arena):len(p.arena)],
	}
	if d.cut {
		e.Flags |= trace.Truncated
		p.counts.cut.Add(1)
	}
	p.events = append(p.events, e)
	p.counts.events.Add(1)
	return nil
}

// write gives the batch to the sink and begins the next. It is called where
// the file may have to be waited for, too: an event does not wait for others.
func (p *Pcap) write() error {
	if len(p.events) == 0 || p.refused != nil {
		return p.refused
	}
	p.refused = p.sink.Write(p.ctx, p.events)
	p.events, p.arena = p.events[:0], p.arena[:0]
	if cap(p.arena) > arenaSize {
		p.arena = make([]byte, 0, arenaSize)
	}
	return p.refused
}

// report says what came of the file.
func (p *Pcap) report() {
	n := p.Progress()
	p.log.Info("capture read", "packets", n.Packets, "events", n.Events, "cut", n.Cut, "skipped", n.Skipped)
	if n.TCP > 0 {
		p.log.Warn("tcp segments skipped: tcp is not read from files yet", "count", n.TCP)
	}
}
