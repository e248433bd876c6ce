package hep

// chunkRun collects chunks of one packet. As long as they stand together it
// only remembers where; when they do not it copies them.
type chunkRun struct {
	from, to int
	split    bool
	buf      []byte
}

func (r *chunkRun) reset() { r.from, r.to, r.split = 0, 0, false }

// add takes the chunk b[from:to].
func (r *chunkRun) add(b []byte, from, to int) {
	switch {
	case r.to == 0:
		r.from, r.to = from, to
		return
	case r.split:
	case r.to == from:
		r.to = to
		return
	default:
		r.buf = append(r.buf[:0], b[r.from:r.to]...)
		r.split = true
	}
	r.buf = append(r.buf, b[from:to]...)
}

// bytes is all that was added, nil if nothing was.
func (r *chunkRun) bytes(b []byte) []byte {
	switch {
	case r.to == 0:
		return nil
	case r.split:
		return r.buf[:len(r.buf):len(r.buf)]
	}
	return b[r.from:r.to:r.to]
}
