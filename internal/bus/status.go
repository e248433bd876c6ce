package bus

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Forever is a time left that has no end.
const Forever = time.Duration(math.MaxInt64)

// StreamStatus is how full the stream is, and how far its consumers are.
type StreamStatus struct {
	Name       string        `json:"name"`
	Created    time.Time     `json:"created"`
	Frames     uint64        `json:"frames"`
	Bytes      uint64        `json:"bytes"`
	FirstSeq   uint64        `json:"first_seq"`
	LastSeq    uint64        `json:"last_seq"`
	FirstTime  time.Time     `json:"first_time,omitzero"`
	LastTime   time.Time     `json:"last_time,omitzero"`
	MaxAge     time.Duration `json:"max_age"`   // 0 is without limit
	MaxBytes   int64         `json:"max_bytes"` // -1 is without limit
	Replicas   int           `json:"replicas"`
	Storage    string        `json:"storage"`
	Duplicates time.Duration `json:"duplicates"`

	Shards []StreamStatus `json:"shards,omitempty"` // each stream by itself, when there are several
}

// ConsumerStatus is how far behind a durable consumer is, and how long it may
// stay there.
type ConsumerStatus struct {
	Name         string        `json:"name"`
	Pending      uint64        `json:"pending"`          // frames still to be delivered
	AckPending   int           `json:"ack_pending"`      // frames in the hands of workers
	Redelivered  int           `json:"redelivered"`      // of those, not for the first time
	Waiting      int           `json:"waiting"`          // workers asking for more
	Delivered    uint64        `json:"delivered"`        // sequence of the frame delivered last
	AckFloor     uint64        `json:"ack_floor"`        // every frame up to here is acknowledged
	Missed       uint64        `json:"missed,omitempty"` // frames discarded before they were delivered
	Streams      int           `json:"streams"`          // that have the consumer: all of them, or somebody is not done making it
	LastActive   time.Time     `json:"last_active,omitzero"`
	OldestUnread time.Duration `json:"oldest_unread"` // age of the first frame that is not acknowledged; 0 is none
	SpaceLeft    int64         `json:"space_left"`    // bytes until unread frames are discarded; -1 is without limit
	TimeLeft     time.Duration `json:"time_left"`     // until then, at the rate of the stream's whole history; see [Forever]
	Paused       bool          `json:"paused,omitempty"`
}

// StreamStatus returns how full the stream is, or all of them together when
// events are spread over several.
func (c *Conn) StreamStatus(ctx context.Context) (StreamStatus, error) {
	names, err := c.eventStreams(ctx)
	if err != nil {
		return StreamStatus{}, err
	}
	var all []StreamStatus
	for _, name := range names {
		s, err := c.js.Stream(ctx, name)
		if err != nil {
			return StreamStatus{}, fmt.Errorf("stream %s: %w", name, err)
		}
		all = append(all, streamStatus(s.CachedInfo()))
	}
	return together(all), nil
}

func streamStatus(info *jetstream.StreamInfo) StreamStatus {
	st, cfg := info.State, info.Config
	return StreamStatus{
		Name: cfg.Name, Created: info.Created,
		Frames: st.Msgs, Bytes: st.Bytes,
		FirstSeq: st.FirstSeq, LastSeq: st.LastSeq, FirstTime: st.FirstTime, LastTime: st.LastTime,
		MaxAge: cfg.MaxAge, MaxBytes: cfg.MaxBytes,
		Replicas: cfg.Replicas, Storage: cfg.Storage.String(), Duplicates: cfg.Duplicates,
	}
}

// Consumers returns how far every durable consumer is: of several streams
// together, when events are spread over them.
func (c *Conn) Consumers(ctx context.Context) ([]ConsumerStatus, error) {
	names, err := c.eventStreams(ctx)
	if err != nil {
		return nil, err
	}
	var all [][]ConsumerStatus
	for _, name := range names {
		one, err := c.consumersOf(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return joined(all), nil
}

func (c *Conn) consumersOf(ctx context.Context, name string) ([]ConsumerStatus, error) {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	stream := streamStatus(s.CachedInfo())
	var all []ConsumerStatus
	list := s.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Config.Durable == "" {
			continue // somebody looking on
		}
		st := consumerStatus(info)
		if st.Pending > 0 || st.AckPending > 0 {
			st.OldestUnread = ageOf(ctx, s, info)
		}
		st.SpaceLeft, st.TimeLeft = stream.left(st, info.TimeStamp)
		st.Missed = stream.missed(st)
		all = append(all, st)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("consumers of stream %s: %w", name, err)
	}
	return all, nil
}

func consumerStatus(info *jetstream.ConsumerInfo) ConsumerStatus {
	st := ConsumerStatus{
		Name:        info.Name,
		Pending:     info.NumPending,
		AckPending:  info.NumAckPending,
		Redelivered: info.NumRedelivered,
		Waiting:     info.NumWaiting,
		Delivered:   info.Delivered.Stream,
		AckFloor:    info.AckFloor.Stream,
		Paused:      info.Paused,
		Streams:     1,
	}
	if info.Delivered.Last != nil {
		st.LastActive = *info.Delivered.Last
	}
	return st
}

// ageOf returns how long the first frame that is not acknowledged has been in
// the stream, or 0 if that cannot be learned.
func ageOf(ctx context.Context, s jetstream.Stream, info *jetstream.ConsumerInfo) time.Duration {
	filter := ">"
	if f := filters(info.Config); len(f) > 0 && f[0] != "" {
		filter = f[0]
	}
	msg, err := s.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(filter))
	if err != nil {
		return 0
	}
	return max(0, info.TimeStamp.Sub(msg.Time))
}

// left returns the space and the time a consumer has before frames that it has
// not acknowledged are discarded, if it stood still from now on.
func (st StreamStatus) left(c ConsumerStatus, now time.Time) (space int64, left time.Duration) {
	space, left = -1, Forever
	if st.MaxAge > 0 {
		left = max(0, st.MaxAge-c.OldestUnread)
	}
	if st.MaxBytes <= 0 {
		return space, left
	}
	space = max(0, st.MaxBytes-st.unread(c.AckFloor))
	if rate := st.rate(now); rate > 0 {
		if seconds := float64(space) / rate; seconds < left.Seconds() {
			left = time.Duration(seconds * float64(time.Second))
		}
	}
	return space, left
}

// missed is how many frames a consumer never gets, for the stream has discarded
// them since the last one it was given.
func (st StreamStatus) missed(c ConsumerStatus) uint64 {
	if st.Frames == 0 || c.Delivered == 0 || c.Delivered+1 >= st.FirstSeq {
		return 0
	}
	return st.FirstSeq - c.Delivered - 1
}

// unread is about how many bytes of the stream are behind floor.
func (st StreamStatus) unread(floor uint64) int64 {
	if st.Frames == 0 || floor >= st.LastSeq {
		return 0
	}
	frames := min(st.LastSeq-floor, st.Frames)
	return int64(float64(st.Bytes) * float64(frames) / float64(st.Frames))
}

// rate is how many bytes a second the stream has grown by over what it holds.
func (st StreamStatus) rate(now time.Time) float64 {
	if st.Frames == 0 {
		return 0
	}
	return float64(st.Bytes) / max(1, now.Sub(st.FirstTime).Seconds())
}
