package hep

import (
	"errors"
	"fmt"
)

// What can be wrong with bytes that are to be decoded.
var (
	ErrNotHEP    = errors.New("hep: not a HEP packet")
	ErrTruncated = errors.New("hep: packet cut short")
	ErrLength    = errors.New("hep: bad total length")
	ErrTrailing  = errors.New("hep: bytes behind the packet")
	ErrFamily    = errors.New("hep: unknown address family")
	ErrChunk     = errors.New("hep: bad chunk length")
)

// What can be wrong with a compressed payload. The packet around it is whole.
var (
	ErrInflate  = errors.New("hep: payload does not inflate")
	ErrTooLarge = fmt.Errorf("%w: larger than the limit", ErrInflate)
)

// What can be wrong with a packet that is to be encoded.
var (
	ErrTooLong = errors.New("hep: packet longer than 65535 bytes")
	ErrVersion = errors.New("hep: unknown version")
	ErrField   = errors.New("hep: version has no room for the value")
	ErrTime    = errors.New("hep: time outside 1970 to 2106")
)

// ErrSync says that a stream no longer is, or never was, HEP3 packet after
// packet. Errors of this kind are a [*SyncError].
var ErrSync = errors.New("hep: stream out of step")

// ChunkError says which chunk is wrong. Offset counts from the start of the
// bytes that were given.
type ChunkError struct {
	Vendor, Type uint16
	Offset       int
	Err          error
}

func (e *ChunkError) Error() string {
	if e.Vendor != 0 {
		return fmt.Sprintf("chunk 0x%04x of vendor 0x%04x at byte %d: %v", e.Type, e.Vendor, e.Offset, e.Err)
	}
	return fmt.Sprintf("chunk 0x%04x at byte %d: %v", e.Type, e.Offset, e.Err)
}

func (e *ChunkError) Unwrap() error { return e.Err }

// SyncError says where a stream went out of step and, if the bytes there give
// it away, what the peer speaks instead.
type SyncError struct {
	Offset int64  // bytes of the stream before the place
	Hint   string // as from Guess; empty if unknown
}

func (e *SyncError) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("%v at byte %d", ErrSync, e.Offset)
	}
	return fmt.Sprintf("%v at byte %d: looks like %s", ErrSync, e.Offset, e.Hint)
}

func (e *SyncError) Unwrap() error { return ErrSync }
