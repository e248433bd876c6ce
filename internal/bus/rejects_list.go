package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// StoredReject is a reject as the stream holds it. Its Event, where it has
// one, is the reader's to keep.
type StoredReject struct {
	Seq  uint64    // its number
	Time time.Time // when it was given up
	Cut  int       // how long Raw was before it was cut; 0 is whole
	Reject
}

// RejectQuery says which rejects are wanted. What is set must match; the zero
// value matches all.
type RejectQuery struct {
	Worker string
	Reason string
	Since  time.Time // given up then or later
	Seq    uint64    // with this number or a higher one
}

func (q *RejectQuery) matches(r *StoredReject) bool {
	return (q.Worker == "" || r.Worker == q.Worker) &&
		(q.Reason == "" || r.Reason == q.Reason) &&
		!r.Time.Before(q.Since)
}

// ErrNoReject is returned for a number that no reject has.
var ErrNoReject = errors.New("no such reject")

// List yields the rejects that match, the oldest first, up to what is there
// when it begins; an error comes last.
func (s *Rejects) List(ctx context.Context, q RejectQuery) iter.Seq2[StoredReject, error] {
	return func(yield func(StoredReject, error) bool) {
		if err := s.walk(ctx, q, func(r StoredReject) bool { return yield(r, nil) }); err != nil {
			yield(StoredReject{}, fmt.Errorf("stream %s: %w", RejectsStreamName, err))
		}
	}
}

// walk calls show for each reject that matches, until that returns false.
func (s *Rejects) walk(ctx context.Context, q RejectQuery, show func(StoredReject) bool) error {
	stream, err := s.js.Stream(ctx, RejectsStreamName)
	if err != nil {
		return err
	}
	last := stream.CachedInfo().State.LastSeq
	subject := RejectsSubject + ".>"
	if q.Worker != "" {
		subject = RejectsSubject + "." + Token(q.Worker)
	}
	cons, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects:    []string{subject},
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       max(q.Seq, 1),
		InactiveThreshold: tailInactive,
	})
	if err != nil {
		return err
	}
	if cons.CachedInfo().NumPending == 0 {
		return nil
	}
	msgs, err := cons.Messages(jetstream.PullMaxBytes(s.conn.ahead(tailAhead)))
	if err != nil {
		return err
	}
	defer msgs.Stop()
	for {
		msg, err := nextReject(ctx, cons, msgs)
		if err != nil || msg == nil {
			return err
		}
		md, err := msg.Metadata()
		if err != nil {
			return err
		}
		if md.Sequence.Stream > last {
			return nil
		}
		r := storedReject(md.Sequence.Stream, md.Timestamp, msg.Headers(), msg.Data())
		if q.matches(&r) && !show(r) || md.NumPending == 0 {
			return nil
		}
	}
}

// nextReject returns the next message, or nil when somebody has removed the
// rest meanwhile.
func nextReject(ctx context.Context, cons jetstream.Consumer, msgs jetstream.MessagesContext) (jetstream.Msg, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, requestTimeout)
		msg, err := msgs.Next(jetstream.NextContext(wait))
		silent := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if !silent {
			return msg, err
		}
		info, err := cons.Info(ctx)
		if err != nil || info.NumPending == 0 {
			return nil, err
		}
	}
}

// Get returns the reject with a number; the error is [ErrNoReject] where there is none.
func (s *Rejects) Get(ctx context.Context, seq uint64) (StoredReject, error) {
	stream, err := s.js.Stream(ctx, RejectsStreamName)
	if err != nil {
		return StoredReject{}, fmt.Errorf("stream %s: %w", RejectsStreamName, err)
	}
	msg, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return StoredReject{}, fmt.Errorf("reject %d: %w", seq, ErrNoReject)
	}
	if err != nil {
		return StoredReject{}, fmt.Errorf("stream %s, reject %d: %w", RejectsStreamName, seq, err)
	}
	return storedReject(msg.Sequence, msg.Time, msg.Header, msg.Data), nil
}

// Delete removes the rejects with these numbers. One that is gone already is no error.
func (s *Rejects) Delete(ctx context.Context, seqs ...uint64) error {
	stream, err := s.js.Stream(ctx, RejectsStreamName)
	if err != nil {
		return fmt.Errorf("stream %s: %w", RejectsStreamName, err)
	}
	for _, seq := range seqs {
		err := stream.DeleteMsg(ctx, seq)
		gone := errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) && s.gone(ctx, seq)
		if err != nil && !gone {
			return fmt.Errorf("stream %s, reject %d: %w", RejectsStreamName, seq, err)
		}
	}
	return nil
}

func (s *Rejects) gone(ctx context.Context, seq uint64) bool {
	_, err := s.Get(ctx, seq)
	return errors.Is(err, ErrNoReject)
}

// Retry puts the event of r into the stream of events once more, for the
// workers to take as any other, and returns nil when it is there. No
// hep-forwarder sends it: to them it is flagged [trace.NoDuplicate]. Retrying
// the same reject again, within the stream's duplicate window, stores it once.
func (s *Rejects) Retry(ctx context.Context, r *StoredReject) error {
	if r.Event == nil {
		return fmt.Errorf("reject %d is no event: %w", r.Seq, trace.ErrPermanent)
	}
	e := *r.Event
	e.Flags |= trace.NoDuplicate
	// A second refusal is a reject of its own: were it equal to the first,
	// the rejects would take it for that one, which may be deleted by then.
	e.Rule = "retry of reject " + strconv.FormatUint(r.Seq, 10)
	body, err := trace.AppendEvent(nil, &e)
	if err != nil {
		return fmt.Errorf("reject %d: %w: %w", r.Seq, trace.ErrPermanent, err)
	}
	shards, err := s.conn.Shards(ctx)
	if err != nil {
		return fmt.Errorf("reject %d: %w", r.Seq, err)
	}
	msg := &nats.Msg{
		Subject: shardSubject(ShardOf(&e, shards)) + "." + retrySubject,
		Header:  frameHeader("retry-"+strconv.FormatUint(r.Seq, 10)+"-"+r.Time.UTC().Format(time.RFC3339Nano), false),
		Data:    body,
	}
	if _, err := s.js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("stream %s, reject %d: %w", StreamName, r.Seq, err)
	}
	return nil
}

// retrySubject is who publishes what is tried again.
const retrySubject = "retry"

// storedReject reads a message of the stream. One whose body is an event has
// that; all others are Raw.
func storedReject(seq uint64, stored time.Time, h nats.Header, body []byte) StoredReject {
	r := StoredReject{
		Seq:  seq,
		Time: stored,
		Reject: Reject{
			Worker: h.Get(HeaderWorker),
			Reason: h.Get(HeaderReason),
			Detail: h.Get(HeaderDetail),
		},
	}
	if t, err := time.Parse(time.RFC3339Nano, h.Get(HeaderTime)); err == nil {
		r.Time = t
	}
	r.Cut, _ = strconv.Atoi(h.Get(HeaderCut)) // absent is whole
	if r.Reason != rejectUndecodable && r.Cut == 0 {
		var d trace.FrameDecoder
		packets, _, err := unpack(h, body, nil)
		if err == nil {
			if events, err := d.Decode(packets); err == nil && len(events) == 1 {
				e := events[0].Clone()
				r.Event = &e
				return r
			}
		}
	}
	r.Raw, r.Header = append([]byte(nil), body...), nats.Header{}
	for _, name := range []string{HeaderFrame, HeaderEncoding} {
		if v := h.Get(name); v != "" {
			r.Header.Set(name, v)
		}
	}
	return r
}
