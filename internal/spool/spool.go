package spool

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"
)

// ErrFull is returned by [Spool.Append] when nothing old may be given up for
// something new.
var ErrFull = errors.New("spool is full")

const (
	// MinBytes is the least a spool may be allowed.
	MinBytes = 4 << 20

	minFile = 256 << 10
	maxFile = 64 << 20
	parts   = 32 // files of a full spool
)

// Options say how much is kept. Zero values are the defaults.
type Options struct {
	MaxBytes   int64  // on disk (1 GiB)
	DropOldest bool   // a full spool gives up its oldest file, instead of refusing what is new
	Subsystem  string // of the metric names: siptrace_<subsystem>_spool_…; empty is "tap"
}

// Spool is a queue of records on disk. It is for use by one goroutine.
type Spool struct {
	dir     string
	opts    Options
	perFile int64
	log     *slog.Logger
	metrics *metrics
	index   *bolt.DB

	files  []*file // oldest first
	active *file   // the last of them, if this process writes it
	bytes  int64   // of all files
	last   uint64  // the newest record
	gone   []uint64
	handed ledger
	space  []byte // values being written

	losses   int // events given up and not said yet
	lossSaid time.Time
}

// Open makes the folder if need be, locks it, and takes over what an earlier
// process has left there.
func Open(dir string, o Options, reg prometheus.Registerer, log *slog.Logger) (*Spool, error) {
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<30)
	o.Subsystem = cmp.Or(o.Subsystem, "tap")
	if o.MaxBytes < MinBytes {
		return nil, fmt.Errorf("spool %s: %d bytes are too few, at least %d", dir, o.MaxBytes, MinBytes)
	}
	s := &Spool{
		dir:     dir,
		opts:    o,
		perFile: min(max(o.MaxBytes/parts, minFile), maxFile),
		log:     log,
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	index, entries, err := openIndex(dir, log)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", dir, err)
	}
	s.index, s.metrics = index, newMetrics(o.Subsystem)
	if err := errors.Join(s.load(entries), s.metrics.register(reg)); err != nil {
		_ = index.Close()
		return nil, fmt.Errorf("spool %s: %w", dir, err)
	}
	s.measure()
	s.tellLosses()
	if records, events := s.left(); records > 0 {
		log.Info("spool holds what an earlier run left", "dir", dir, "records", records, "events", events, "bytes", s.bytes)
	}
	return s, nil
}

// Append keeps records, each with its number of events. The first so many
// returned are on disk; of the rest the error says why they are not.
func (s *Spool) Append(records [][]byte, events []int) (int, error) {
	done := 0
	for done < len(records) {
		n, size := s.portion(records[done:])
		if err := s.makeRoom(size); err != nil {
			return done, err
		}
		if err := s.write(records[done:done+n], events[done:done+n]); err != nil {
			return done, fmt.Errorf("spool %s: %w", s.dir, err)
		}
		done += n
	}
	s.tellLosses()
	return done, nil
}

// portion is how many of the records go into one transaction, and about how
// many bytes that takes on disk.
func (s *Spool) portion(records [][]byte) (n int, size int64) {
	const perRecord, perWrite = 1 << 10, 64 << 10 // pages are never quite full, and some are written again
	size = perWrite
	for _, r := range records {
		more := int64(len(r)) + perRecord
		if n > 0 && size+more > s.perFile {
			break
		}
		n, size = n+1, size+more
	}
	return n, size
}

// makeRoom gives up old files, where that is wanted, until size more bytes fit.
func (s *Spool) makeRoom(size int64) error {
	for s.bytes+size > s.opts.MaxBytes {
		if !s.opts.DropOldest || len(s.files) == 0 {
			return ErrFull
		}
		if err := s.giveUp(s.files[0]); err != nil {
			return err
		}
	}
	return nil
}

// giveUp removes a file with all that is in it. What of it was handed out may
// still be done, and is not lost yet.
func (s *Spool) giveUp(f *file) error {
	_, events := f.left()
	lost := int(events) - s.handed.orphan(f.Last)
	s.metrics.full.Add(float64(lost))
	s.losses += lost
	f.Done, f.DoneEvents, f.Sealed = f.Last, f.Events, true
	err := s.remember([]*file{f})
	s.remove(f)
	return err
}

// write appends to the newest file, or to another when that is full.
func (s *Spool) write(records [][]byte, events []int) (err error) {
	if s.active != nil && s.active.Bytes >= s.perFile {
		s.seal()
	}
	if s.active == nil {
		f, err := createFile(s.dir, s.last+1, s.perFile)
		if err != nil {
			return err
		}
		s.active = f
		s.files = append(s.files, f)
		s.bytes += f.Bytes
	}
	f, before, total := s.active, s.active.Bytes, s.active.Events
	s.space, err = f.append(records, events, s.space)
	s.bytes += f.Bytes - before
	s.last = f.Last
	s.metrics.spooled.Add(float64(f.Events - total))
	s.measure()
	if err != nil {
		s.seal() // whatever state it is in: the next attempt has a file of its own
	}
	return err
}

// seal ends the file that is written.
func (s *Spool) seal() {
	f := s.active
	s.active, f.Sealed = nil, true
	if records, _ := f.left(); records == 0 {
		s.remove(f)
		return
	}
	if err := s.remember([]*file{f}); err != nil {
		s.log.Warn("index of the spool not written", "err", err) // the file is read instead
	}
}

// remove deletes a file of which nothing is left.
func (s *Spool) remove(f *file) {
	f.close()
	for i := range s.files {
		if s.files[i] == f {
			s.files = append(s.files[:i], s.files[i+1:]...)
			break
		}
	}
	if s.active == f {
		s.active = nil
	}
	s.bytes -= f.Bytes
	s.gone = append(s.gone, f.First)
	if err := os.Remove(f.path); err != nil {
		s.log.Warn("file of the spool not removed", "file", f.path, "err", err)
	}
	s.measure()
}

// Next hands out records that were not handed out before, oldest first, until
// yield returns false; that record counts as handed out as well. A record is
// valid until yield returns. What is damaged is counted and left out; after an
// error the rest may be readable later.
func (s *Spool) Next(yield func(seq uint64, record []byte, events int) bool) error {
	more := true
	for i := 0; more && i < len(s.files); i++ {
		f := s.files[i]
		if f.next > f.Last {
			continue
		}
		err := f.read(func(r kept) bool {
			s.skip(f, r.seq)
			s.handed.add(r.seq, r.events, r.since)
			f.next = r.seq + 1
			more = yield(r.seq, r.data, r.events)
			return more
		})
		if err != nil && !errors.Is(err, errDamaged) {
			return fmt.Errorf("spool %s: %w", s.dir, err)
		}
		if err != nil {
			s.damaged(f, err)
		}
		if more {
			s.skip(f, f.Last+1)
		}
		if f.next > f.Last && f != s.active {
			f.close()
		}
	}
	return nil
}

// skip gives up the records of f before seq that were not handed out: they
// could not be read.
func (s *Spool) skip(f *file, seq uint64) {
	for ; f.next < seq; f.next++ {
		s.handed.addLost(f.next)
	}
}

// Done says that records are safe elsewhere. They are not handed out again,
// and their place on disk is given back.
func (s *Spool) Done(seqs []uint64) error {
	s.metrics.drained.Add(float64(s.handed.done(seqs)))
	var changed, empty []*file
	s.handed.settled(func(seq uint64, events int) {
		f := s.holding(seq)
		if f == nil {
			return // given up meanwhile
		}
		f.Done, f.DoneEvents = seq, f.DoneEvents+uint64(events)
		if n := len(changed); n == 0 || changed[n-1] != f {
			changed = append(changed, f)
		}
	})
	for _, f := range changed {
		if f.Done < f.Last {
			continue
		}
		f.Sealed = true
		s.lost(f.Events - f.DoneEvents) // what was skipped
		f.DoneEvents = f.Events
		empty = append(empty, f)
	}
	var err error
	if len(changed) > 0 {
		err = s.remember(changed)
	}
	for _, f := range empty {
		s.remove(f)
	}
	s.measure()
	s.tellLosses()
	return err
}

// holding is the file of a record, or nil when it is gone.
func (s *Spool) holding(seq uint64) *file {
	for _, f := range s.files {
		if f.First <= seq && seq <= f.Last {
			return f
		}
	}
	return nil
}

// Empty reports whether nothing is left to hand out.
func (s *Spool) Empty() bool {
	return len(s.files) == 0 || s.files[len(s.files)-1].next > s.files[len(s.files)-1].Last
}

// Close lets go of the folder. What is not done stays for the next process.
func (s *Spool) Close() error {
	orphaned := s.handed.orphaned()
	s.metrics.full.Add(float64(orphaned))
	s.losses, s.lossSaid = s.losses+orphaned, time.Time{}
	s.tellLosses()
	for _, f := range s.files {
		f.Sealed = true
	}
	err := s.remember(s.files)
	for _, f := range s.files {
		f.close()
	}
	return errors.Join(err, guard(s.index.Close))
}

// damaged counts a file that cannot be read, or not all of it; once.
func (s *Spool) damaged(f *file, err error) {
	if f.told {
		return
	}
	f.told = true
	s.metrics.damagedFiles.Inc()
	s.log.Error("file of the spool is damaged, what cannot be read is left out", "file", filepath.Base(f.path), "err", err)
}

// lost counts events that were on disk and cannot be read.
func (s *Spool) lost(events uint64) {
	s.metrics.damaged.Add(float64(events))
	if events > 0 {
		s.log.Error("events of a damaged file of the spool are lost", "count", events)
	}
}

// tellLosses says at most once a second how many events were given up.
func (s *Spool) tellLosses() {
	if now := time.Now(); s.losses > 0 && now.Sub(s.lossSaid) >= time.Second {
		s.log.Warn("spool gave up its oldest events", "count", s.losses, "bytes", s.bytes, "limit", s.opts.MaxBytes)
		s.losses, s.lossSaid = 0, now
	}
}

// left is what is not done yet.
func (s *Spool) left() (records, events uint64) {
	for _, f := range s.files {
		r, e := f.left()
		records, events = records+r, events+e
	}
	return records, events
}
