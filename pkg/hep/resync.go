package hep

import (
	"bytes"
	"encoding/binary"
	"io"
)

// resync is the state of a Reader that looks for the next packet.
type resync struct {
	budget int   // 0: never look
	lost   bool  // looking
	spent  int   // bytes skipped and chunks walked since step was lost
	walked int   // bytes of the candidate whose chunks are good; 0: no candidate
	cause  error // where and why step was lost
}

// search is Next out of step. It gives out the next packet whose chunks fill
// it exactly.
func (r *Reader) search() ([]byte, error) {
	s := &r.resync
	for s.spent <= s.budget {
		if s.walked == 0 {
			if err := r.findMagic(); err != nil {
				return nil, err
			}
			s.walked = headSize
		}
		total, err := r.walkCandidate()
		switch {
		case err != nil && err != io.EOF:
			return nil, err
		case total > 0:
			*s = resync{budget: s.budget}
			return r.take(total), nil
		}
		r.pass(1)
		s.walked = 0
	}
	return nil, s.cause
}

// findMagic skips to the next bytes that a packet may begin with.
func (r *Reader) findMagic() error {
	for {
		b := r.buf[r.from:r.to]
		i := indexMagic(b)
		found := i >= 0
		if !found {
			i = max(0, len(b)-3) // the last three bytes may be the start of one
		}
		switch r.pass(i); {
		case r.resync.spent > r.resync.budget:
			return r.resync.cause
		case found:
			return nil
		}
		if err := r.fill(min(len(b), 3) + 1); err != nil {
			return r.atEnd(err)
		}
	}
}

// indexMagic is where the first HEP3 or EEP3 in b is, or -1.
func indexMagic(b []byte) int {
	for from := 1; from < len(b); {
		i := bytes.Index(b[from:], []byte("EP3"))
		if i < 0 {
			return -1
		}
		if i += from; b[i-1] == 'H' || b[i-1] == 'E' {
			return i - 1
		}
		from = i + 1
	}
	return -1
}

// walkCandidate walks the chunks of the candidate, from where it was left, and
// returns the size of the packet that it is, or 0 if it is none. Where the
// chunks already tell that, it does not wait for the rest.
func (r *Reader) walkCandidate() (total int, err error) {
	s := &r.resync
	if err := r.fill(headSize); err != nil {
		return 0, err
	}
	total = int(binary.BigEndian.Uint16(r.buf[r.from+4:]))
	if total < headSize {
		return 0, nil
	}
	for s.walked < total {
		if total-s.walked < headSize {
			return 0, nil
		}
		if err := r.fill(s.walked + headSize); err != nil {
			return 0, err
		}
		n := int(binary.BigEndian.Uint16(r.buf[r.from+s.walked+4:]))
		if n < headSize || n > total-s.walked {
			return 0, nil
		}
		s.walked += n
		s.spent++
	}
	if err := r.fill(total); err != nil {
		return 0, err
	}
	return total, nil
}

// pass skips n bytes at the cost of the budget.
func (r *Reader) pass(n int) {
	r.skip(n)
	r.resync.spent += n
}
