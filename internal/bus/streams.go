package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The defaults of [StreamConfig].
const (
	DefaultMaxAge     = 48 * time.Hour
	DefaultMaxBytes   = 10 << 30
	DefaultDuplicates = 2 * time.Minute

	rejectsMaxAge   = 7 * 24 * time.Hour
	rejectsMaxBytes = 256 << 20
	minMaxBytes     = 32 << 20 // below this a stream is not worth making
	stateHistory    = 64       // who switched tracing, and when
)

// StreamConfig says how much history is kept and how safely. The zero value is
// the default for a single server.
type StreamConfig struct {
	Replicas   int           // 0 is 1; 3 in production
	MaxAge     time.Duration // 0 is 48 h
	MaxBytes   int64         // 0 is 10 GiB, or less where the server has less room
	Memory     bool          // keep nothing on disk
	Duplicates time.Duration // how long a frame is recognised when it is published again; 0 is 2 min
	Leave      bool          // make nothing: somebody else does
	Shards     int           // streams to spread events over, where none exist; 0 is 1
}

// A Difference is a setting of a stream that exists and is not as wanted.
type Difference struct {
	Stream, Setting string
	Have, Want      string
}

func (d Difference) String() string {
	return fmt.Sprintf("stream %s: %s is %s, wanted %s", d.Stream, d.Setting, d.Have, d.Want)
}

// EnsureStreams makes the streams and the bucket where they are missing. What
// exists stays as it is, for an administrator may have set it so: the
// differences are returned for someone to say. It waits for nothing; call it
// again when it fails because NATS is away.
func (c *Conn) EnsureStreams(ctx context.Context, cfg StreamConfig) ([]Difference, error) {
	if cfg.Leave {
		return nil, nil
	}
	bucket, err := c.ensureBucket(ctx, cfg.bucket())
	if err != nil {
		return nil, err
	}
	shards, agreed, err := c.agreeOnShards(ctx, cfg.Shards)
	if err != nil {
		return nil, err
	}
	// The rejects have a size of their own; events take what room is left, also
	// when several processes make their streams at once.
	rejects, err := c.ensureStream(ctx, cfg.rejects())
	if err != nil {
		return nil, err
	}
	events, err := c.ensureEvents(ctx, cfg, shards)
	if err != nil {
		return nil, err
	}
	return slices.Concat(agreed, events, rejects, bucket), nil
}

func (cfg StreamConfig) storage() jetstream.StorageType {
	if cfg.Memory {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

func (cfg StreamConfig) replicas() int { return cmp.Or(cfg.Replicas, 1) }

// events is the stream of frames. The oldest go first when it is full: one
// sick worker must stop neither the taps nor the other workers.
func (cfg StreamConfig) events() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        StreamName,
		Description: "frames of traced SIP events",
		Subjects:    []string{EventsSubject + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxAge:      cmp.Or(cfg.MaxAge, DefaultMaxAge),
		MaxBytes:    cmp.Or(cfg.MaxBytes, DefaultMaxBytes),
		Storage:     cfg.storage(),
		Replicas:    cfg.replicas(),
		Duplicates:  cmp.Or(cfg.Duplicates, DefaultDuplicates),
		AllowDirect: true,
		DenyDelete:  true,
	}
}

func (cfg StreamConfig) rejects() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        RejectsStreamName,
		Description: "events a worker gave up on, with the reason",
		Subjects:    []string{RejectsSubject + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxAge:      rejectsMaxAge,
		MaxBytes:    rejectsMaxBytes,
		Storage:     cfg.storage(),
		Replicas:    cfg.replicas(),
		Duplicates:  cmp.Or(cfg.Duplicates, DefaultDuplicates),
		AllowDirect: true,
	}
}

// bucket republishes every change as a plain message, which reaches taps at
// once where a watch may sleep for seconds after a reconnect.
func (cfg StreamConfig) bucket() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      BucketName,
		Description: "trace state and rules",
		History:     stateHistory,
		Storage:     cfg.storage(),
		Replicas:    cfg.replicas(),
		RePublish:   &jetstream.RePublish{Source: "$KV." + BucketName + ".>", Destination: ControlSubject + ".>"},
	}
}

// shard is the stream of frames of one shard.
func (cfg StreamConfig) shard(shard, shards int) jetstream.StreamConfig {
	s := cfg.events()
	if shards > 1 {
		s.Name, s.Subjects = streamOf(shard, shards), []string{shardSubject(shard) + ".>"}
		s.Description = fmt.Sprintf("frames of traced SIP events, shard %d of %d", shard, shards)
		s.MaxBytes = max(s.MaxBytes/int64(shards), minMaxBytes)
	}
	return s
}

// ensureEvents makes the streams of frames. The server reserves MaxBytes, so
// when nobody asked for a size, one that fits is looked for; it is the same for
// all that are made.
func (c *Conn) ensureEvents(ctx context.Context, cfg StreamConfig, shards int) ([]Difference, error) {
	size := cfg.shard(0, shards).MaxBytes
	var (
		all  []Difference
		made []jetstream.StreamConfig
	)
	for shard := 0; shard < shards; {
		want := cfg.shard(shard, shards)
		want.MaxBytes = size
		isNew, diffs, err := c.makeOrCompare(ctx, want)
		if cfg.MaxBytes == 0 && noRoom(err) && size/2 >= minMaxBytes {
			size /= 2
			err = c.shrink(ctx, made, size)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if isNew {
			made = append(made, want)
		}
		all = append(all, diffs...)
		shard++
	}
	if cfg.MaxBytes == 0 { // nobody wanted a size, so none is wrong
		all = slices.DeleteFunc(all, func(d Difference) bool { return d.Setting == settingMaxBytes })
	}
	return all, nil
}

// shrink makes room beside streams that were made just now.
func (c *Conn) shrink(ctx context.Context, made []jetstream.StreamConfig, size int64) error {
	for _, cfg := range made {
		cfg.MaxBytes = size
		if _, err := c.js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}

// noRoom reports that the server, or too many of a cluster, have not enough
// storage left for a stream.
func noRoom(err error) bool {
	const noPeers, insufficientResources, storageExceeded, memoryExceeded = 10005, 10023, 10047, 10028
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case insufficientResources, storageExceeded, memoryExceeded:
		return true
	case noPeers:
		return strings.Contains(api.Description, "insufficient storage")
	}
	return false
}

func (c *Conn) ensureStream(ctx context.Context, want jetstream.StreamConfig) ([]Difference, error) {
	_, diffs, err := c.makeOrCompare(ctx, want)
	return diffs, err
}

func (c *Conn) makeOrCompare(ctx context.Context, want jetstream.StreamConfig) (made bool, _ []Difference, _ error) {
	s, err := c.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = c.js.CreateStream(ctx, want)
		made = err == nil
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was quicker, with other settings
		s, err = c.js.Stream(ctx, want.Name)
	}
	if err != nil {
		return false, nil, fmt.Errorf("stream %s: %w", want.Name, err)
	}
	return made, differences(s.CachedInfo().Config, want), nil
}

func (c *Conn) ensureBucket(ctx context.Context, want jetstream.KeyValueConfig) ([]Difference, error) {
	name := "KV_" + want.Bucket
	_, err := c.js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err = c.js.CreateKeyValue(ctx, want)
	}
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return nil, fmt.Errorf("bucket %s: %w", want.Bucket, err)
	}
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", want.Bucket, err)
	}
	have := s.CachedInfo().Config
	var d comparison
	d.stream = name
	d.add("storage", have.Storage, want.Storage)
	d.add("replicas", have.Replicas, want.Replicas)
	d.add("republish to", republishTo(have.RePublish), republishTo(want.RePublish))
	return d.found, nil
}

func republishTo(r *jetstream.RePublish) string {
	if r == nil {
		return "nothing"
	}
	return r.Destination
}

const settingMaxBytes = "max bytes"

func differences(have, want jetstream.StreamConfig) []Difference {
	d := comparison{stream: want.Name}
	d.add("subjects", have.Subjects, want.Subjects)
	d.add("retention", have.Retention, want.Retention)
	d.add("discard", have.Discard, want.Discard)
	d.add("max age", have.MaxAge, want.MaxAge)
	d.add(settingMaxBytes, have.MaxBytes, want.MaxBytes)
	d.add("storage", have.Storage, want.Storage)
	d.add("replicas", have.Replicas, want.Replicas)
	d.add("duplicate window", have.Duplicates, want.Duplicates)
	d.add("no ack", have.NoAck, want.NoAck)
	return d.found
}

type comparison struct {
	stream string
	found  []Difference
}

func (c *comparison) add(setting string, have, want any) {
	if h, w := fmt.Sprint(have), fmt.Sprint(want); h != w {
		c.found = append(c.found, Difference{c.stream, setting, h, w})
	}
}
