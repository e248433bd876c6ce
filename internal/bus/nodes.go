package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const (
	nodeSubject  = "siptrace.v1.nodes.status"
	nodePrefix   = "siptrace-"
	nodeEndpoint = "status"
	nodeReplies  = 1024 // answers that may wait to be read
)

// NodeInfo says who a process is.
type NodeInfo struct {
	Service string // "tap", "db-writer"
	Name    string // of this one among its kind: a host, an agent
	Version string
}

// NodeStatus is what a process tells about itself. [ServeNode] fills in the
// first group.
type NodeStatus struct {
	Service  string    `json:"service"`
	Name     string    `json:"name"`
	Instance string    `json:"instance"` // new at every start
	Version  string    `json:"version"`
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`

	Revision uint64            `json:"revision"` // of the state it has applied
	StateOn  bool              `json:"state_on"`
	Counters map[string]uint64 `json:"counters,omitempty"`
	Waiting  string            `json:"waiting,omitempty"` // why it does nothing now

	Listens []string     `json:"listens,omitempty"` // where it takes what others trace: "udp:192.0.2.1:9060"
	Sends   []string     `json:"sends,omitempty"`   // how it sends plain SIP: "udp:192.0.2.9>192.0.2.5:5888"
	Rules   []RuleStatus `json:"rules,omitempty"`   // of a tap, by name
}

// RuleStatus is how a rule does on one tap.
type RuleStatus struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`         // that is applied, or ignored because of Error
	Error    string `json:"error,omitempty"`  // why it is ignored
	Matched  uint64 `json:"matched"`          // events it has selected
	Failed   uint64 `json:"failed,omitempty"` // events its expression came to no answer about
	Ended    bool   `json:"ended,omitempty"`  // it has had its max_events
}

// Node is the presence of this process. Stop it when the process ends.
type Node struct{ service micro.Service }

// ServeNode lets [Conn.Nodes] and every tool of the NATS micro services API
// find this process. The status function is called for each question, by
// another goroutine.
func ServeNode(c *Conn, info NodeInfo, status func() NodeStatus) (*Node, error) {
	host, _ := os.Hostname() // unknown is empty
	self := NodeStatus{
		Service: info.Service,
		Name:    info.Name,
		Version: info.Version,
		Host:    host,
		PID:     os.Getpid(),
		Started: time.Now().UTC().Truncate(time.Second),
	}
	service, err := micro.AddService(c.nc, micro.Config{
		Name:        nodePrefix + Token(info.Service),
		Version:     semver(info.Version),
		Description: "siptrace " + info.Service,
		Metadata:    map[string]string{"node": info.Name, "version": info.Version},
	})
	if err != nil {
		return nil, fmt.Errorf("presence of %s: %w", info.Service, err)
	}
	self.Instance = service.Info().ID
	answer := micro.HandlerFunc(func(r micro.Request) {
		st := status()
		st.Service, st.Name, st.Instance, st.Version = self.Service, self.Name, self.Instance, self.Version
		st.Host, st.PID, st.Started = self.Host, self.PID, self.Started
		if err := r.RespondJSON(st); err != nil {
			c.log.Debug("status not answered", "err", err)
		}
	})
	// Without a queue group one question is answered by everybody.
	err = service.AddEndpoint(nodeEndpoint, answer, micro.WithEndpointSubject(nodeSubject), micro.WithEndpointQueueGroupDisabled())
	if err != nil {
		_ = service.Stop()
		return nil, fmt.Errorf("presence of %s: %w", info.Service, err)
	}
	return &Node{service}, nil
}

// Stop ends the presence.
func (n *Node) Stop() error {
	if err := n.service.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("presence: %w", err)
	}
	return nil
}

// semver returns v if it is a semantic version, which the API insists on, or a
// development version that carries no news.
func semver(v string) string {
	pattern := regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)$`)
	if m := pattern.FindStringSubmatch(v); m != nil {
		return m[1]
	}
	return "0.0.0-dev"
}

// Nodes asks every process who it is and how it does. It returns when nobody
// has answered for the time wait, sorted by service and name.
func (c *Conn) Nodes(ctx context.Context, wait time.Duration) ([]NodeStatus, error) {
	replies := make(chan *nats.Msg, nodeReplies)
	inbox := c.nc.NewInbox()
	sub, err := c.nc.ChanSubscribe(inbox, replies)
	if err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // a closed connection has unsubscribed already
	if err := c.nc.PublishRequest(nodeSubject, inbox, nil); err != nil {
		return nil, fmt.Errorf("nodes: %w", err)
	}
	var nodes []NodeStatus
	quiet := time.NewTimer(wait)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("nodes: %w", ctx.Err())
		case <-quiet.C:
			return sortNodes(nodes), nil
		case msg := <-replies:
			if noResponders(msg) {
				return nil, nil
			}
			var st NodeStatus
			if err := json.Unmarshal(msg.Data, &st); err != nil {
				c.log.Warn("answer of a node not understood", "err", err)
				continue
			}
			nodes = append(nodes, st)
			quiet.Reset(wait)
		}
	}
}

// noResponders reports that the server says nobody is there to answer.
func noResponders(msg *nats.Msg) bool {
	return len(msg.Data) == 0 && msg.Header.Get("Status") == "503"
}

func sortNodes(nodes []NodeStatus) []NodeStatus {
	slices.SortFunc(nodes, func(a, b NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance))
	})
	return nodes
}
