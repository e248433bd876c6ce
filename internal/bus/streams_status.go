package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamDetail is how full a stream is and where its copies are.
type StreamDetail struct {
	StreamStatus
	Compression string `json:"compression"` // on the server's disk
	Cluster     string `json:"cluster,omitempty"`
	Leader      string `json:"leader,omitempty"` // empty on a single server, and while a cluster elects one
	Peers       []Peer `json:"peers,omitempty"`  // the other copies
}

// A Peer is a server that holds another copy than the leader's.
type Peer struct {
	Name    string        `json:"name"`
	Current bool          `json:"current"` // up to date with the leader
	Offline bool          `json:"offline,omitempty"`
	Active  time.Duration `json:"active"` // since it was last heard of
	Lag     uint64        `json:"lag"`    // operations it is behind
}

// Details returns how full each of the streams is and where its copies are:
// events, rejects, bucket. One that is not there is left out.
func (c *Conn) Details(ctx context.Context) ([]StreamDetail, error) {
	var all []StreamDetail
	events, err := c.eventStreams(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	for _, name := range append(events, RejectsStreamName, bucketStream) {
		s, err := c.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
		all = append(all, detail(s.CachedInfo()))
	}
	return all, nil
}

func detail(info *jetstream.StreamInfo) StreamDetail {
	d := StreamDetail{StreamStatus: streamStatus(info), Compression: info.Config.Compression.String()}
	if info.Cluster == nil {
		return d
	}
	d.Cluster, d.Leader = info.Cluster.Name, info.Cluster.Leader
	for _, r := range info.Cluster.Replicas {
		d.Peers = append(d.Peers, Peer{Name: r.Name, Current: r.Current, Offline: r.Offline, Active: r.Active, Lag: r.Lag})
	}
	return d
}
