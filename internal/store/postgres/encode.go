package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"unicode/utf8"

	"github.com/seed-452fa805/siptrace/internal/store"
)

// What a binary COPY begins and ends with: signature, flags, length of the
// header's extension; and -1 for the number of columns.
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

// epoch is PostgreSQL's, 1 January 2000, in microseconds since 1970.
const epoch = 946_684_800_000_000

// appendOwn appends r as a tuple of ownColumns.
//
//	number of columns int16, then for each: length int32, value
func appendOwn(b []byte, r *store.Row) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(ownColumns)))
	b = appendInt64(b, r.ID)
	b = appendInt64(b, r.Time.UnixMicro()-epoch)
	b = appendInt32(b, r.TimeUS())
	b = appendBytes(b, r.CallID)
	b = appendBytes(b, r.TracedUser)
	b = appendBytes(b, r.Msg)
	b = appendBytes(b, r.Method)
	b = appendBytes(b, r.Status)
	b = appendBytes(b, r.FromIP)
	b = appendBytes(b, r.ToIP)
	b = appendBytes(b, r.FromTag)
	b = appendBytes(b, r.ToTag)
	b = appendString(b, r.Direction.String())
	b = appendBytes(b, r.EventID[:])
	b = appendBytes(b, r.Node)
	b = appendString(b, r.Transport.String())
	b = appendInt64(b, r.CSeq)
	b = appendBytes(b, r.CorrelationID)
	b = appendBytes(b, r.FromUser)
	b = appendBytes(b, r.ToUser)
	return appendBytes(b, r.RURIUser)
}

// appendKamailio appends r as a tuple of kamailioColumns. Its time_stamp has
// whole seconds, in UTC, as Kamailio writes them in that time zone.
func appendKamailio(b []byte, r *store.Row, l *lengths) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(kamailioColumns)))
	b = appendInt64(b, r.Time.Unix()*1e6-epoch)
	b = appendInt32(b, r.TimeUS())
	b = appendBytes(b, first(r.CallID, l.callID))
	b = appendBytes(b, first(r.TracedUser, l.tracedUser))
	b = appendText(b, r.Msg)
	b = appendBytes(b, first(r.Method, l.method))
	b = appendBytes(b, first(r.Status, l.status))
	b = appendBytes(b, first(r.FromIP, l.fromIP))
	b = appendBytes(b, first(r.ToIP, l.toIP))
	b = appendBytes(b, first(r.FromTag, l.fromTag))
	b = appendBytes(b, first(r.ToTag, l.toTag))
	return appendBytes(b, first([]byte(r.Direction.String()), l.direction))
}

func appendInt64(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, 8), uint64(n))
}

func appendInt32(b []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 4), uint32(n))
}

func appendBytes(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

func appendString(b []byte, v string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// appendText appends a message to a text column: as it is, or in the form in
// which Kamailio leaves every message in such a column, \x and hexadecimal
// digits, if a text cannot hold it or would be taken for that form.
func appendText(b, msg []byte) []byte {
	if utf8.Valid(msg) && bytes.IndexByte(msg, 0) < 0 && !bytes.HasPrefix(msg, []byte(hexForm)) {
		return appendBytes(b, msg)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(hexForm)+hex.EncodedLen(len(msg))))
	return hex.AppendEncode(append(b, hexForm...), msg)
}

const hexForm = `\x`

// plain undoes appendText, and reads what Kamailio itself wrote.
func plain(text []byte) []byte {
	digits, ok := bytes.CutPrefix(text, []byte(hexForm))
	if !ok {
		return text
	}
	msg, err := hex.AppendDecode(nil, digits)
	if err != nil {
		return text
	}
	return msg
}

// first returns the first n characters of text, or all of it if n is 0.
func first(text []byte, n int) []byte {
	if n == 0 || len(text) <= n {
		return text
	}
	end := 0
	for range n {
		if end == len(text) {
			return text
		}
		_, size := utf8.DecodeRune(text[end:])
		end += size
	}
	return text[:end]
}
