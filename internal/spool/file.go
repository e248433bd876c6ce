package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

// errDamaged is what guard makes of a fault or a panic.
var errDamaged = errors.New("file is damaged")

const (
	fileSuffix = ".frames"
	fileMode   = 0o600
	growStep   = 256 << 10 // bbolt makes a file larger in such steps

	minDatabase = 4 * 4096 // the pages of an empty database

	// A value is a checksum of what follows it, the number of events and the
	// time in microseconds, then the record.
	valueHead = 4 + 4 + 8
)

// A file is one database of records with consecutive keys. Its numbers are
// those of the index.
type file struct {
	path string
	entry
	next uint64   // the record to hand out next
	told bool     // that it is damaged
	db   *bolt.DB // nil while nobody needs it
}

// An entry is what the index knows of a file.
type entry struct {
	First      uint64 `json:"first"` // records First to Last are in it
	Last       uint64 `json:"last"`
	Events     uint64 `json:"events"` // in all of them
	Done       uint64 `json:"done"`   // records up to here are done, or lost
	DoneEvents uint64 `json:"done_events"`
	Since      int64  `json:"since"`  // when the first came, in microseconds
	Bytes      int64  `json:"bytes"`  // size of the file
	Sealed     bool   `json:"sealed"` // nothing comes behind Last
}

func (e *entry) left() (records, events uint64) { return e.Last - e.Done, e.Events - e.DoneEvents }

// A kept is one record as it is found in a file. Its data is valid as long as
// the transaction.
type kept struct {
	seq    uint64
	events int
	since  int64
	data   []byte
}

var (
	recordsBucket = []byte("frames")
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

func fileName(first uint64) string { return fmt.Sprintf("%016x%s", first, fileSuffix) }

// firstOf reads what fileName writes.
func firstOf(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(filepath.Base(name), fileSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 16, 64)
	return first, err == nil && first > 0
}

// createFile makes the file whose first record will be first.
func createFile(dir string, first uint64, size int64) (*file, error) {
	f := &file{path: filepath.Join(dir, fileName(first)), entry: entry{First: first, Last: first - 1, Done: first - 1}, next: first}
	err := guard(func() (err error) {
		// A map that is large from the start need never be moved.
		f.db, err = bolt.Open(f.path, fileMode, &bolt.Options{FreelistType: bolt.FreelistMapType, InitialMmapSize: int(2 * size)})
		if err != nil {
			return err
		}
		f.db.AllocSize = growStep
		return f.db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(recordsBucket)
			return err
		})
	})
	if err != nil {
		f.close()
		_ = os.Remove(f.path) // what is left of it is of no use
		return nil, err
	}
	return f, f.measure()
}

// measure takes the size from the disk.
func (f *file) measure() error {
	st, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	f.Bytes = st.Size()
	return nil
}

// append writes the records in one transaction: all of them are on disk when
// it returns nil, else none. The space is used again with the next call.
func (f *file) append(records [][]byte, events []int, space []byte) ([]byte, error) {
	now := time.Now().UnixMicro()
	space = space[:0]
	total := 0
	err := guard(func() error {
		return f.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(recordsBucket)
			b.FillPercent = 1 // nothing is ever put between two
			for i, r := range records {
				from := len(space)
				space = appendValue(space, r, events[i], now)
				total += events[i]
				if err := b.Put(key(f.Last+1+uint64(i)), space[from:len(space):len(space)]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return space, err
	}
	if f.Since == 0 {
		f.Since = now
	}
	f.Last += uint64(len(records))
	f.Events += uint64(total)
	return space, f.measure()
}

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func appendValue(b, record []byte, events int, now int64) []byte {
	from := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(events))
	b = binary.BigEndian.AppendUint64(b, uint64(now))
	b = append(b, record...)
	binary.BigEndian.PutUint32(b[from:], crc32.Checksum(b[from+4:], castagnoli))
	return b
}

// parseValue reads what appendValue writes.
func parseValue(k, v []byte) (kept, bool) {
	if len(k) != 8 || len(v) < valueHead || binary.BigEndian.Uint32(v) != crc32.Checksum(v[4:], castagnoli) {
		return kept{}, false
	}
	return kept{
		seq:    binary.BigEndian.Uint64(k),
		events: int(binary.BigEndian.Uint32(v[4:])),
		since:  int64(binary.BigEndian.Uint64(v[8:])),
		data:   v[valueHead:],
	}, true
}

// open makes an old file readable.
func (f *file) open() error {
	if f.db != nil {
		return nil
	}
	return guard(func() error {
		st, err := os.Stat(f.path)
		if errors.Is(err, fs.ErrNotExist) { // somebody has removed it; bbolt would make one
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		if err != nil {
			return err
		}
		if st.Size() < minDatabase {
			return fmt.Errorf("%w: %d bytes", errDamaged, st.Size())
		}
		f.db, err = bolt.Open(f.path, fileMode, &bolt.Options{ReadOnly: true, Timeout: lockWait})
		return err
	})
}

// read gives yield every record from f.next on, until it returns false or the
// file ends. A record whose checksum is wrong is left out. The error says that
// there was such a record, or that the rest cannot be read.
func (f *file) read(yield func(kept) bool) error {
	if err := f.open(); err != nil {
		return err
	}
	return guard(func() error {
		return f.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(recordsBucket)
			if b == nil {
				return nil // its writer was killed before it had written anything
			}
			next, broken, more := f.next, false, true
			c := b.Cursor()
			for k, v := c.Seek(key(f.next)); k != nil; k, v = c.Next() {
				r, ok := parseValue(k, v)
				if !ok {
					broken = true
					continue
				}
				broken = broken || r.seq != next // keys are consecutive: a page is missing
				next = r.seq + 1
				if more = yield(r); !more {
					break
				}
			}
			if broken || more && next <= f.Last {
				return fmt.Errorf("%w: records are broken or missing", errDamaged)
			}
			return nil
		})
	})
}

// scan learns from the file itself what the index does not know. The error
// says that there is more than could be read.
func (f *file) scan() error {
	done := f.Done
	f.Last, f.Events, f.DoneEvents, f.next = f.First-1, 0, 0, f.First
	err := f.read(func(r kept) bool {
		f.Last = r.seq
		f.Events += uint64(r.events)
		if r.seq <= done {
			f.DoneEvents += uint64(r.events)
		}
		if f.Since == 0 {
			f.Since = r.since
		}
		return true
	})
	f.Done = min(max(done, f.First-1), f.Last)
	f.next = f.Done + 1
	return err
}

// close lets go of the file; it stays on disk.
func (f *file) close() {
	if f.db == nil {
		return
	}
	_ = guard(f.db.Close) // nothing is written any more
	f.db = nil
}
