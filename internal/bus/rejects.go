package bus

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/zeebo/xxh3"
)

const (
	maxDetail     = 1 << 10 // of the far side's words
	rejectHeaders = 4 << 10 // room for the headers of a reject
)

// Reject is what a worker gave up on: an event or, when no event could be
// made of it, a whole message as it was.
type Reject struct {
	Worker string // who gave up
	Reason string // a short constant phrase
	Detail string // the far side's own words
	Event  *trace.Event
	Raw    []byte      // when Event is nil
	Header nats.Header // of Raw
}

// Rejects is the stream where nothing is lost that could not be delivered.
type Rejects struct {
	conn *Conn
	js   jetstream.JetStream
}

// NewRejects returns the rejects stream behind conn.
func NewRejects(conn *Conn) *Rejects { return &Rejects{conn, conn.js} }

// Put returns nil when r is in the stream. The same reject put again is stored
// once.
func (s *Rejects) Put(ctx context.Context, r Reject) error {
	body := r.Raw
	if r.Event != nil {
		var err error
		if body, err = trace.AppendEvent(nil, r.Event); err != nil {
			return fmt.Errorf("reject %s: %w: %w", r.Event.ID, trace.ErrPermanent, err)
		}
	}
	msg := &nats.Msg{
		Subject: RejectsSubject + "." + Token(r.Worker),
		Header:  r.header(body),
		Data:    body,
	}
	_, err := s.js.PublishMsg(ctx, msg)
	if errors.Is(err, nats.ErrMaxPayload) {
		msg.Header[HeaderCut] = []string{fmt.Sprint(len(body))}
		msg.Data = body[:max(0, min(len(body), int(s.conn.nc.MaxPayload())-rejectHeaders))]
		_, err = s.js.PublishMsg(ctx, msg)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", RejectsStreamName, err)
	}
	return nil
}

func (r *Reject) header(body []byte) nats.Header {
	h := nats.Header{
		jetstream.MsgIDHeader: []string{r.id(body)},
		HeaderReason:          []string{oneLine(r.Reason)},
		HeaderWorker:          []string{oneLine(r.Worker)},
		HeaderTime:            []string{time.Now().UTC().Format(time.RFC3339Nano)},
	}
	if r.Detail != "" {
		h[HeaderDetail] = []string{oneLine(r.Detail)}
	}
	if r.Event != nil {
		h[HeaderFrame] = []string{frameVersion}
		return h
	}
	for _, name := range []string{HeaderFrame, HeaderEncoding} {
		if v := r.Header.Get(name); v != "" {
			h[name] = []string{oneLine(v)}
		}
	}
	return h
}

// id is the same when the same reject is put again. The far side may word its
// refusal of an event differently then; our own words tell messages apart that
// have the same body.
func (r *Reject) id(body []byte) string {
	what := r.Worker + "\x00" + r.Reason + "\x00"
	if r.Event == nil {
		what += r.Detail + "\x00"
	}
	h := xxh3.HashString128(what + string(body)).Bytes()
	return hex.EncodeToString(h[:])
}

// oneLine makes s fit for a header.
func oneLine(s string) string {
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
