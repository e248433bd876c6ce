package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// configuredServer runs the server that a configuration file describes and
// returns it when it accepts clients.
func configuredServer(file string) (*server.Server, error) {
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		return nil, err
	}
	opts.NoSigs, opts.NoLog = true, true
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	go ns.Start()
	if !ns.ReadyForConnections(quick) {
		ns.Shutdown()
		ns.WaitForShutdown()
		return nil, errors.New("server not ready")
	}
	return ns, nil
}

// A cluster is three servers, each a process of its own that can be killed.
type cluster struct {
	t       *testing.T
	url     string            // of all three
	members map[string]member // by name
}

type member struct {
	config string // file
	childServer
}

// startCluster runs a cluster until the test ends.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, members: make(map[string]member)}
	var clients, routes []string
	for range 3 {
		clients, routes = append(clients, freeAddr(t)), append(routes, freeAddr(t))
	}
	c.url = "nats://" + strings.Join(clients, ",nats://")
	for i, name := range []string{"n1", "n2", "n3"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "nats-server.conf")
		text := fmt.Sprintf("server_name: %s\nlisten: %q\njetstream { store_dir: %q, max_file: 4GB }\n"+
			"cluster { name: test, listen: %q, routes: [ \"nats://%s\" ] }\n",
			name, clients[i], dir, routes[i], strings.Join(routes, `", "nats://`))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.members[name] = member{config: file}
		c.start(name)
	}
	return c
}

func (c *cluster) start(name string) {
	c.t.Helper()
	m := c.members[name]
	m.childServer = startChild(c.t, childConfig+"="+m.config)
	c.members[name] = m
}

// keptIDs is a sink that remembers which events it was given, by their ids.
type keptIDs struct {
	mu   sync.Mutex
	seen map[trace.ID]bool
}

func (k *keptIDs) Write(_ context.Context, events []trace.Event) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range events {
		k.seen[events[i].ID] = true
	}
	return nil
}

func (k *keptIDs) distinct() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.seen)
}

// jetStream returns a second way to the cluster, to see what is really there.
func (c *cluster) jetStream() jetstream.JetStream {
	c.t.Helper()
	nc, err := nats.Connect(c.url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	return js
}

// clusterInfo returns the members of a stream, or nil while nobody leads it.
func clusterInfo(ctx context.Context, js jetstream.JetStream, stream string) *jetstream.ClusterInfo {
	s, err := js.Stream(ctx, stream)
	if err != nil || s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
		return nil
	}
	return s.CachedInfo().Cluster
}

func TestCluster_aKilledLeaderLosesNothingAndDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three servers")
	}
	cl := startCluster(t)
	conn := connect(t, cl.url, "test")
	ensure(t, conn, bus.StreamConfig{Replicas: 3})
	js := cl.jetStream()
	for _, name := range []string{bus.StreamName, bus.RejectsStreamName, "KV_" + bus.BucketName} {
		eventually(t, name+" has a leader and two copies beside it", func() bool {
			info := clusterInfo(t.Context(), js, name)
			return info != nil && len(info.Replicas) == 2 && info.Replicas[0].Current && info.Replicas[1].Current
		})
	}

	k := keptIDs{seen: make(map[trace.ID]bool)}
	consume(t, conn, bus.ConsumerOptions{BatchEvents: 200, Linger: 5 * time.Millisecond, AckWait: 2 * time.Second}, &k)
	w, _ := watch(t, conn, bus.State{On: true})
	before := set(t, conn, bus.State{Who: "before the loss"})
	p, reg, _ := publisher(t, conn, bus.PublisherOptions{})

	const n = 20_000
	ids := make(map[trace.ID]bool)
	killed := ""
	for first := 0; first < n; first += 50 {
		events := makeEvents(first, 50)
		for i := range events {
			ids[events[i].ID] = true
		}
		if got := p.Offer(events); got != 50 {
			t.Fatalf("Offer accepted %d events, want 50", got)
		}
		time.Sleep(time.Millisecond) // traffic, not a burst: the loss is to fall into it
		if first == n/2 {
			eventually(t, "the stream has a leader", func() bool {
				info := clusterInfo(t.Context(), js, bus.StreamName)
				if info != nil {
					killed = info.Leader
				}
				return info != nil
			})
			cl.members[killed].kill()
		}
	}
	eventually(t, "the state is there without its leader", func() bool {
		st, err := bus.NewStateStore(conn).Get(t.Context())
		return err == nil && st == before
	})
	after := before
	eventually(t, "the state can be switched", func() bool {
		next := bus.State{On: true, Who: "after the loss", When: before.When, Revision: before.Revision}
		if st, err := bus.NewStateStore(conn).Set(t.Context(), next); err == nil {
			after = st
			return true
		}
		st, err := bus.NewStateStore(conn).Get(t.Context()) // an answer may be lost, not the flip
		after = st
		return err == nil && st.Who == next.Who
	})
	eventually(t, "the tap hears the flip", func() bool { got, _, _ := w.last(); return got == after })
	eventually(t, "all events are acknowledged", func() bool {
		return metric(t, reg, "siptrace_bus_published_events_total") == n
	})
	eventually(t, "all events arrive at the other side", func() bool { return k.distinct() == n })
	k.mu.Lock()
	for id := range ids {
		if !k.seen[id] {
			t.Errorf("event %v never arrived", id)
		}
	}
	k.mu.Unlock()
	wantOnce(t, stored(t, conn), n)

	cl.start(killed)
	eventually(t, "the lost server catches up", func() bool {
		all, err := conn.Details(t.Context())
		return err == nil && len(all) == 3 && inStep(all[0]) && inStep(all[1]) && inStep(all[2])
	})
	eventually(t, "two of three copies are given up", func() bool {
		plans, err := conn.PlanStreams(t.Context(), bus.StreamChange{Replicas: 1})
		return err == nil && conn.ApplyStreams(t.Context(), plans) == nil
	})
	wantOnce(t, stored(t, conn), n)
}

// inStep reports whether a stream has a leader and two copies up to date with it.
func inStep(d bus.StreamDetail) bool {
	return d.Leader != "" && len(d.Peers) == 2 && d.Peers[0].Current && d.Peers[1].Current
}
