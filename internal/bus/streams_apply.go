package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go/jetstream"
)

// StreamChange names the settings that are wanted. What is zero is not named
// and stays as it is. Replicas are of all streams and the bucket, the rest is of
// the stream of events, or of each where there are shards; MaxBytes is of all
// of them together.
type StreamChange struct {
	Replicas    int           // 1 to 5
	MaxAge      time.Duration // how long events are kept
	MaxBytes    int64         // how much of them
	Duplicates  time.Duration // how long a frame is recognised when it is published again
	Compression string        // on the server's disk: "s2" or "none"
	Storage     string        // "file" or "memory"; only where the stream is made
	Shards      int           // streams to spread events over; only where none are there
}

// A StreamPlan is what would become of one stream.
type StreamPlan struct {
	Stream      string
	Make        bool         // it is not there yet
	Differences []Difference // from what is there to what is wanted
	Refused     []error      // what of them cannot be; each wraps [ErrStreamFixed]
	Discards    uint64       // bytes that the new limits would discard at once, about

	want   jetstream.StreamConfig
	shards int  // streams of events in all
	fit    bool // nobody named a size: one that the server has room for
}

// Changes reports whether there is anything to do.
func (p *StreamPlan) Changes() bool { return p.Make || len(p.Differences) > 0 }

// OfEvents reports whether the stream is one of those that events are in.
func (p *StreamPlan) OfEvents() bool { return ofEvents(p.Stream) }

// ErrStreamFixed is returned for a change that JetStream cannot make.
var ErrStreamFixed = errors.New("cannot be changed")

// ErrStreamMoved is returned when a stream is not any more as it was planned for.
var ErrStreamMoved = errors.New("the stream was changed meanwhile: look at the differences again")

const maxReplicas = 5

func (ch StreamChange) check() error {
	switch {
	case ch.Replicas < 0 || ch.Replicas > maxReplicas:
		return fmt.Errorf("%d replicas: 1 to %d", ch.Replicas, maxReplicas)
	case ch.Shards < 0 || ch.Shards > MaxShards:
		return fmt.Errorf("%d shards: 1 to %d", ch.Shards, MaxShards)
	case ch.MaxBytes < 0 || ch.MaxBytes > 0 && ch.MaxBytes < minMaxBytes:
		return fmt.Errorf("a stream of %s: at least %s", humanize.IBytes(uint64(max(0, ch.MaxBytes))), humanize.IBytes(minMaxBytes))
	case ch.MaxAge < 0 || ch.Duplicates < 0:
		return errors.New("a time below zero")
	case ch.MaxAge > 0 && ch.Duplicates > ch.MaxAge:
		return fmt.Errorf("a duplicate window of %v is longer than events are kept, %v", ch.Duplicates, ch.MaxAge)
	}
	return nil
}

// PlanStreams looks what a change would do to each stream, and changes nothing.
func (c *Conn) PlanStreams(ctx context.Context, ch StreamChange) ([]StreamPlan, error) {
	if err := ch.check(); err != nil {
		return nil, err
	}
	fresh := StreamConfig{
		Replicas: ch.Replicas, MaxAge: ch.MaxAge, MaxBytes: ch.MaxBytes, Duplicates: ch.Duplicates,
		Memory: ch.Storage == "memory",
	}
	names, err := c.knownStreams(ctx, max(1, ch.Shards))
	if err != nil {
		return nil, err
	}
	var wanted []jetstream.StreamConfig
	for shard := range names {
		wanted = append(wanted, fresh.shard(shard, len(names)))
	}
	if ch.MaxBytes > 0 {
		ch.MaxBytes = wanted[0].MaxBytes // of each
	}
	wanted = append(wanted, fresh.rejects(), jetstream.StreamConfig{Name: bucketStream, Storage: fresh.storage(), Replicas: fresh.replicas()})
	var plans []StreamPlan
	for _, cfg := range wanted {
		p, err := c.planStream(ctx, ch, cfg)
		if err != nil {
			return nil, err
		}
		p.shards = len(names)
		plans = append(plans, p)
	}
	if ch.Shards > 0 && ch.Shards != len(names) {
		plans[0].Refused = append(plans[0].Refused, fmt.Errorf("shards %w from %d to %d: only streams that are made anew can be another number",
			ErrStreamFixed, len(names), ch.Shards))
	}
	return plans, nil
}

// knownStreams are the streams of events, one for each shard, whether they are
// there or not. Where none are there they would be as many as are wanted.
func (c *Conn) knownStreams(ctx context.Context, want int) ([]string, error) {
	names, err := c.eventStreams(ctx)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return names, err
	}
	names = nil
	for shard := range want {
		names = append(names, streamOf(shard, want))
	}
	return names, nil
}

// ofEvents reports whether a stream of ours is one of events.
func ofEvents(stream string) bool { return stream != RejectsStreamName && stream != bucketStream }

// planStream compares what is there with what is wanted; fresh is the stream
// as it would be made.
func (c *Conn) planStream(ctx context.Context, ch StreamChange, fresh jetstream.StreamConfig) (StreamPlan, error) {
	p := StreamPlan{Stream: fresh.Name, want: fresh, fit: ofEvents(fresh.Name) && ch.MaxBytes == 0}
	s, err := c.js.Stream(ctx, fresh.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		p.Make = true
		if ch.Compression == "s2" && ofEvents(p.Stream) {
			p.want.Compression = jetstream.S2Compression
		}
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("stream %s: %w", fresh.Name, err)
	}
	info := s.CachedInfo()
	have := info.Config
	p.want = ch.onto(have)
	p.Differences = changed(have, p.want)
	if have.Storage != p.want.Storage {
		p.Refused = append(p.Refused, fmt.Errorf("stream %s: storage %w from %v to %v: only a stream that is made anew can have another",
			p.Stream, ErrStreamFixed, have.Storage, p.want.Storage))
	}
	if have.Sealed {
		p.Refused = append(p.Refused, fmt.Errorf("stream %s: a sealed stream %w", p.Stream, ErrStreamFixed))
	}
	if p.want.MaxAge > 0 && p.want.Duplicates > p.want.MaxAge {
		p.Refused = append(p.Refused, fmt.Errorf("stream %s: max age %w to %v: that is less than the duplicate window, %v; name both",
			p.Stream, ErrStreamFixed, p.want.MaxAge, p.want.Duplicates))
	}
	p.Discards = discards(info, p.want)
	return p, nil
}

// onto returns the settings of a stream with those that are named put over them.
func (ch StreamChange) onto(cfg jetstream.StreamConfig) jetstream.StreamConfig {
	if ch.Replicas > 0 {
		cfg.Replicas = ch.Replicas
	}
	switch ch.Storage {
	case "file":
		cfg.Storage = jetstream.FileStorage
	case "memory":
		cfg.Storage = jetstream.MemoryStorage
	}
	if !ofEvents(cfg.Name) {
		return cfg
	}
	if ch.MaxAge > 0 {
		cfg.MaxAge = ch.MaxAge
	}
	if ch.MaxBytes > 0 {
		cfg.MaxBytes = ch.MaxBytes
	}
	if ch.Duplicates > 0 {
		cfg.Duplicates = ch.Duplicates
	}
	switch ch.Compression {
	case "s2":
		cfg.Compression = jetstream.S2Compression
	case "none":
		cfg.Compression = jetstream.NoCompression
	}
	return cfg
}

// changed are the differences in what a StreamChange can name.
func changed(have, want jetstream.StreamConfig) []Difference {
	d := comparison{stream: want.Name}
	d.add("replicas", have.Replicas, want.Replicas)
	d.add("max age", have.MaxAge, want.MaxAge)
	d.add(settingMaxBytes, exactSize(have.MaxBytes), exactSize(want.MaxBytes))
	d.add("duplicate window", have.Duplicates, want.Duplicates)
	d.add("compression", have.Compression, want.Compression)
	d.add("storage", have.Storage, want.Storage)
	return d.found
}

// exactSize is a number of bytes for people, and never rounded.
func exactSize(n int64) string {
	if n < 0 {
		return "no limit"
	}
	const mib, gib = 1 << 20, 1 << 30
	switch {
	case n%gib == 0:
		return fmt.Sprintf("%d GiB", n/gib)
	case n%mib == 0:
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%d bytes", n)
}

// discards is about how many bytes of what a stream holds are beyond limits.
func discards(info *jetstream.StreamInfo, want jetstream.StreamConfig) uint64 {
	st := info.State
	var over uint64
	if want.MaxBytes > 0 && st.Bytes > uint64(want.MaxBytes) {
		over = st.Bytes - uint64(want.MaxBytes)
	}
	span, kept := info.TimeStamp.Sub(st.FirstTime), want.MaxAge
	if st.Msgs > 0 && kept > 0 && span > kept {
		over = max(over, uint64(float64(st.Bytes)*float64(span-kept)/float64(span)))
	}
	return over
}

// ApplyStreams makes what plans say. A stream that is not any more as it was
// when it was planned for is left alone, with [ErrStreamMoved]; what cannot be
// is refused before anything is changed.
func (c *Conn) ApplyStreams(ctx context.Context, plans []StreamPlan) error {
	for _, p := range plans {
		if len(p.Refused) > 0 {
			return errors.Join(p.Refused...)
		}
	}
	// The bucket is first, for it says how many streams of events there are.
	plans = slices.SortedStableFunc(slices.Values(plans), func(a, b StreamPlan) int {
		return cmp.Compare(a.rank(), b.rank())
	})
	for _, p := range plans {
		err := c.applyStream(ctx, p)
		if err == nil && p.Stream == bucketStream && p.shards > 1 {
			err = c.applyShards(ctx, p.shards)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", p.Stream, err)
		}
	}
	return nil
}

// rank says when it is the plan's turn.
func (p *StreamPlan) rank() int {
	switch {
	case p.Stream == bucketStream:
		return 0
	case !p.OfEvents(): // events take what room is left
		return 1
	}
	return 2
}

// applyShards makes sure that the fleet has as many streams as are planned for.
func (c *Conn) applyShards(ctx context.Context, want int) error {
	have, _, err := c.agreeOnShards(ctx, want)
	if err == nil && have != want {
		err = ErrStreamMoved
	}
	return err
}

func (c *Conn) applyStream(ctx context.Context, p StreamPlan) error {
	if p.Make {
		return inWords(c.makeStream(ctx, p), p.want)
	}
	if len(p.Differences) == 0 {
		return nil
	}
	s, err := c.js.Stream(ctx, p.Stream)
	if err != nil {
		return err
	}
	now := s.CachedInfo().Config
	if !slices.Equal(changed(now, p.want), p.Differences) {
		return ErrStreamMoved
	}
	// What was not named is as it is now, not as it was when the plan was made.
	now.Replicas, now.MaxAge, now.MaxBytes = p.want.Replicas, p.want.MaxAge, p.want.MaxBytes
	now.Duplicates, now.Compression = p.want.Duplicates, p.want.Compression
	_, err = c.js.UpdateStream(ctx, now)
	return inWords(err, p.want)
}

func (c *Conn) makeStream(ctx context.Context, p StreamPlan) error {
	if p.Stream == bucketStream {
		cfg := StreamConfig{Replicas: p.want.Replicas, Memory: p.want.Storage == jetstream.MemoryStorage}
		_, err := c.js.CreateKeyValue(ctx, cfg.bucket())
		return err
	}
	_, err := c.js.CreateStream(ctx, p.want)
	for p.fit && noRoom(err) && p.want.MaxBytes/2 >= minMaxBytes {
		p.want.MaxBytes /= 2
		_, err = c.js.CreateStream(ctx, p.want)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return ErrStreamMoved
	}
	return err
}

// inWords says what the server's refusal means for who asked.
func inWords(err error, want jetstream.StreamConfig) error {
	const notClustered, noPeers = 10074, 10005
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case noRoom(err):
		return fmt.Errorf("the server has no room for %s: give it more storage, or the stream less: %w", humanize.IBytes(uint64(max(0, want.MaxBytes))), err)
	case !errors.As(err, &api):
		return err
	case api.ErrorCode == notClustered:
		return fmt.Errorf("%d replicas need a cluster of as many servers, and this server is alone: %w", want.Replicas, err)
	case api.ErrorCode == noPeers || strings.Contains(api.Description, "no suitable peers"):
		return fmt.Errorf("%d replicas need as many servers that are up, with room for the stream on each: %w", want.Replicas, err)
	}
	return err
}
