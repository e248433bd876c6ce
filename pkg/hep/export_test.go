package hep

// BufferSize is the memory that the Reader holds.
func (r *Reader) BufferSize() int { return len(r.buf) }

// Spent is what of its budget a Reader out of step has used.
func (r *Reader) Spent() int { return r.resync.spent }
