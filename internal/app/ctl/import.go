package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/capture"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// ImportCmd is ctl import.
type ImportCmd struct {
	app.BusFlags
	Files       []string `arg:"" name:"file" help:"Capture files, pcap or pcapng, plain or gzip, and files of HEP3 packets; \"-\" is standard input."`
	Format      string   `help:"auto: look what the file begins with; standard input is taken for a capture." enum:"auto,pcap,hep" default:"auto" env:"-"`
	AgentID     uint32   `name:"agent-id" help:"Capture id of messages that have neither id nor name of an agent." placeholder:"N"`
	AgentName   string   `name:"agent-name" help:"Agent of messages that have neither id nor name. Default: the host's name, as with tap." placeholder:"NAME"`
	Table       string   `help:"Put every event into this table, whatever it says itself." env:"-" placeholder:"TABLE"`
	NoDuplicate bool     `help:"Let no hep-forwarder send the events on." env:"-"`
	DryRun      bool     `help:"Only count what is in the files." env:"-"`
	UTC         bool     `name:"utc" help:"Show times in UTC instead of local time." env:"-"`
	JSON        bool     `name:"json" help:"Print what came of it as one JSON object." env:"-"`
}

// Help is the end of ctl import --help.
func (*ImportCmd) Help() string {
	return `Publishes what is in files, with the times it has there, as a tap would; what workers run store and send it.
The same file again changes nothing in the database: the same message of the same agent is the same event.
Examples:
  ctl import calls.pcapng
  ctl import --agent-name sbc-7 --table lab --no-duplicate tuesday.pcap.gz wednesday.pcap.gz
  ctl import backup.hep --dry-run`
}

// Run imports.
func (c *ImportCmd) Run(env *Env) error {
	if c.Table != "" {
		if err := store.CheckTable(c.Table); err != nil {
			return app.Usagef("--table: %w", err)
		}
	}
	if c.AgentName == "" {
		c.AgentName, _ = os.Hostname() // unknown is empty
	}
	im := &importJob{cmd: c, env: env, chosen: &selection{table: c.Table, census: newCensus()}}
	im.out = outcome{verb: "imported"}
	if c.DryRun {
		if err := im.readAll(); err != nil {
			return err
		}
		im.out.take(im.chosen, nil, im.elapsed)
		return im.tell()
	}
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.StreamStatus(env); err != nil {
		return fmt.Errorf("%w; has a tap or db-writer been started with this --nats?", err)
	}
	return im.publish(conn)
}

// An importJob is one ctl import.
type importJob struct {
	cmd      *ImportCmd
	env      *Env
	chosen   *selection
	insist   *insistent
	progress *progress
	elapsed  time.Duration
	skipped  []string // what was left out of which file, for people
	out      outcome
}

// publish reads the files into the stream.
func (im *importJob) publish(conn *bus.Conn) error {
	shards, err := conn.Shards(im.env)
	if err != nil {
		return err
	}
	im.progress = startProgress(im.env.Stderr, im.size())
	p, err := bus.NewPublisher(conn, bus.PublisherOptions{Agent: im.cmd.AgentName, Shards: shards}, prometheus.NewRegistry(), im.progress.log())
	if err != nil {
		im.progress.stop()
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(im.env))
	var running sync.WaitGroup
	var ended error
	running.Go(func() { ended = p.Run(ctx) })
	im.insist = newInsistent(p, time.Minute, im.progress.say)
	im.chosen.out = im.insist
	err = im.readAll()
	cancel()
	running.Wait()
	if err := errors.Join(err, ended); err != nil {
		if im.insist.written > 0 {
			err = fmt.Errorf("%w; %s published before that, and the same command again does no harm", err, counted(im.insist.written, "event"))
		}
		return err
	}
	im.out.take(im.chosen, im.insist, im.elapsed)
	return im.tell()
}

// size is the size of all files, or 0 if it is not known.
func (im *importJob) size() float64 {
	total := 0.0
	for _, name := range im.cmd.Files {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			return 0
		}
		total += float64(info.Size())
	}
	return total
}

// readAll reads the files one after the other.
func (im *importJob) readAll() error {
	if im.progress == nil {
		im.progress = startProgress(im.env.Stderr, im.size())
	}
	defer func() { im.elapsed = im.progress.stop() }()
	im.chosen.told = im.progress.add
	before := int64(0)
	for _, name := range im.cmd.Files {
		n, err := im.read(name, before)
		if im.env.Err() != nil {
			im.out.Stopped, im.out.next = true, "the same command again does no harm"
			return nil
		}
		if err != nil {
			return err
		}
		before += n
	}
	return nil
}

// read reads one file into the selection and returns its size.
func (im *importJob) read(name string, before int64) (size int64, err error) {
	src, err := im.open(name)
	if err != nil {
		return 0, err
	}
	sink := trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		im.complete(events)
		err := im.chosen.Write(ctx, events)
		im.progress.at(float64(before+src.position()), name)
		return err
	})
	err = src.Run(im.env, sink)
	if note := src.leftOut(); note != "" {
		im.skipped = append(im.skipped, name+": "+note)
	}
	return src.position(), errors.Join(err, src.Close())
}

// complete fills in what the file does not know, as a tap does, and identifies
// the events that are not.
func (im *importJob) complete(events []trace.Event) {
	for i := range events {
		e := &events[i]
		if e.Agent == (trace.Agent{}) {
			e.Agent = trace.Agent{ID: im.cmd.AgentID, Name: im.cmd.AgentName}
		}
		e.Src, e.Dst = unmapped(e.Src), unmapped(e.Dst)
		if im.cmd.NoDuplicate {
			e.Flags |= trace.NoDuplicate
		}
		if e.ID.IsZero() {
			e.Identify()
		}
	}
}

// unmapped writes an IPv4 address that came in IPv6 clothes as what it is.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// tell says what came of it.
func (im *importJob) tell() error {
	if im.cmd.DryRun && !im.cmd.JSON {
		fmt.Fprintf(im.env.Stdout, "found     %s\n", counted(im.out.Read, "event"))
		if err := im.out.Census.print(im.env.Stdout, im.cmd.UTC); err != nil {
			return err
		}
	}
	for _, note := range im.skipped {
		fmt.Fprintln(im.env.Stderr, note)
	}
	if im.cmd.DryRun && !im.cmd.JSON {
		return im.out.exit()
	}
	return im.out.tell(im.env, im.cmd.JSON)
}

// An importSource is a file being read.
type importSource interface {
	trace.Source
	position() int64 // bytes read
	leftOut() string // what became no event, for people; empty is nothing
	Close() error
}

// open opens a file of either format.
func (im *importJob) open(name string) (importSource, error) {
	format := im.cmd.Format
	if format == "auto" {
		format = "pcap"
		if name != "-" {
			is, err := isHEP(name)
			if err != nil {
				return nil, err
			}
			if is {
				format = "hep"
			}
		}
	}
	if format == "hep" {
		return openHEPFile(name, im.env.Stdin)
	}
	p, err := capture.OpenPcap(name, capture.PcapOptions{Batch: importBatch}, prometheus.NewRegistry(), im.env.log())
	if err != nil {
		return nil, err
	}
	return pcapSource{p}, nil
}

// importBatch is how many events are published together.
const importBatch = 1024

// isHEP reports whether a file begins as HEP3 does.
func isHEP(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return false, err
	}
	return bytes.Equal(head, []byte("HEP3")) || bytes.Equal(head, []byte("EEP3")), nil
}

// pcapSource is a capture file.
type pcapSource struct{ *capture.Pcap }

func (s pcapSource) position() int64 { return s.Progress().Bytes }

func (s pcapSource) leftOut() string {
	p := s.Progress()
	if p.Skipped == 0 {
		return ""
	}
	text := fmt.Sprintf("%s of %s left out: no SIP over UDP", count(p.Skipped), counted(p.Packets, "packet"))
	if p.TCP > 0 {
		text += fmt.Sprintf(" (%s of them TCP)", count(p.TCP))
	}
	return text
}
