package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrInUse is returned by [Open] when another process has the folder.
var ErrInUse = errors.New("in use by another process")

const (
	indexName = "index.db"
	lockWait  = 200 * time.Millisecond
)

var filesBucket = []byte("files")

// openIndex locks the folder and returns its index and what is in it. One that
// cannot be read is made anew: the files themselves know all but what is done
// of them.
func openIndex(dir string, log *slog.Logger) (*bolt.DB, map[uint64]entry, error) {
	path := filepath.Join(dir, indexName)
	db, entries, err := tryIndex(path)
	if errors.Is(err, errDamaged) {
		log.Warn("index of the spool is damaged, making another: what was done since may be sent again", "file", path, "err", err)
		if err := os.Remove(path); err != nil {
			return nil, nil, err
		}
		db, entries, err = tryIndex(path)
	}
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, nil, ErrInUse
	}
	return db, entries, err
}

func tryIndex(path string) (*bolt.DB, map[uint64]entry, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > 0 && st.Size() < minDatabase {
		return nil, nil, fmt.Errorf("%w: %d bytes", errDamaged, st.Size())
	}
	var (
		db      *bolt.DB
		entries map[uint64]entry
	)
	err := guard(func() (err error) {
		db, err = bolt.Open(path, fileMode, &bolt.Options{Timeout: lockWait})
		if err != nil {
			return err
		}
		db.AllocSize = growStep
		return db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(filesBucket)
			if err != nil {
				return err
			}
			entries, err = readIndex(b)
			return err
		})
	})
	if err != nil && db != nil {
		_ = guard(db.Close)
	}
	return db, entries, err
}

// readIndex returns the entries by their first record.
func readIndex(b *bolt.Bucket) (map[uint64]entry, error) {
	entries := make(map[uint64]entry)
	return entries, b.ForEach(func(_, v []byte) error {
		var e entry
		if err := json.Unmarshal(v, &e); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		entries[e.First] = e
		return nil
	})
}

// remember writes what has changed and forgets files that are gone.
func (s *Spool) remember(changed []*file) error {
	err := guard(func() error {
		return s.index.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(filesBucket)
			for _, first := range s.gone {
				if err := b.Delete(key(first)); err != nil {
					return err
				}
			}
			for _, f := range changed {
				v, err := json.Marshal(f.entry)
				if err != nil {
					return err
				}
				if err := b.Put(key(f.First), v); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("spool %s: %w", s.dir, err)
	}
	s.gone = s.gone[:0]
	return nil
}

// load finds the files that an earlier process has left.
func (s *Spool) load(entries map[uint64]entry) error {
	names, err := os.ReadDir(s.dir) // sorted, and so are the files
	if err != nil {
		return err
	}
	for _, name := range names {
		first, ok := firstOf(name.Name())
		if !ok {
			continue
		}
		f := &file{path: filepath.Join(s.dir, name.Name()), entry: entry{First: first, Last: first - 1, Done: first - 1}}
		if e, ok := entries[first]; ok {
			f.entry = e
			delete(entries, first)
		}
		if err := s.adopt(f); err != nil {
			return err
		}
	}
	for _, e := range entries {
		s.gone = append(s.gone, e.First)
		s.last = max(s.last, e.Last) // a name the index knows is not used again
		if records, events := e.left(); records > 0 {
			s.damaged(&file{path: fileName(e.First)}, fs.ErrNotExist)
			s.lost(events)
		}
	}
	if len(s.gone) == 0 {
		return nil
	}
	return s.remember(nil)
}

// adopt takes over a file of an earlier process; nothing is written into it.
func (s *Spool) adopt(f *file) error {
	defer f.close()
	if st, err := os.Stat(f.path); err == nil && st.Size() == 0 && !f.Sealed {
		return os.Remove(f.path) // its writer was killed before it had written anything
	}
	known := f.entry
	f.next = f.Done + 1
	if !known.Sealed {
		err := f.scan()
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		if err != nil {
			s.damaged(f, err)
			s.lost(known.Events - min(f.Events, known.Events))
		}
	}
	if err := f.measure(); err != nil {
		return err
	}
	f.Sealed = true
	s.last = max(s.last, f.Last)
	if records, _ := f.left(); records == 0 {
		s.gone = append(s.gone, f.First)
		return os.Remove(f.path)
	}
	s.files = append(s.files, f)
	s.bytes += f.Bytes
	return nil
}
