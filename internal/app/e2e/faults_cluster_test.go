package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// memberOfCluster runs the server that a configuration file describes.
func memberOfCluster(config string) (shutdown func(), err error) {
	opts, err := server.ProcessConfigFile(config)
	if err != nil {
		return nil, err
	}
	opts.NoSigs, opts.NoLog = true, true
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	go s.Start()
	shutdown = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	if !s.ReadyForConnections(patience) {
		shutdown()
		return nil, errors.New("the server is not ready")
	}
	return shutdown, nil
}

// A natsCluster is three servers, each a process of its own that can be killed.
type natsCluster struct {
	clients []string
	members map[string]*natsMember // by name
}

type natsMember struct {
	config  string // file
	running *process
}

func (c *natsCluster) url() string { return "nats://" + strings.Join(c.clients, ",nats://") }

// startCluster runs a cluster until the test ends.
func startCluster(t *testing.T) *natsCluster {
	t.Helper()
	c := &natsCluster{members: make(map[string]*natsMember)}
	var routes []string
	for range 3 {
		c.clients, routes = append(c.clients, freeAddr(t)), append(routes, freeAddr(t))
	}
	for i, name := range []string{"n1", "n2", "n3"} {
		dir := t.TempDir()
		m := &natsMember{config: filepath.Join(dir, "nats-server.conf")}
		text := fmt.Sprintf("server_name: %s\nlisten: %q\njetstream { store_dir: %q, max_file: 4GB }\n"+
			"cluster { name: test, listen: %q, routes: [ \"nats://%s\" ] }\n",
			name, c.clients[i], dir, routes[i], strings.Join(routes, `", "nats://`))
		if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.members[name] = m
		m.launch(t)
	}
	for _, m := range c.members {
		m.running.says(t, "ready")
	}
	js := jetStream(t, c)
	eventually(t, "the cluster has JetStream", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.AccountInfo(ctx)
		return err == nil
	})
	return c
}

func (m *natsMember) launch(t *testing.T) {
	t.Helper()
	m.running = launch(t, append(environment(t), natsDir+"="+filepath.Dir(m.config), natsConfig+"="+m.config), os.Args[0])
}

// inStep returns who leads the stream of events once every copy of it is up to
// date.
func (c *natsCluster) inStep(tr *trial, js jetstream.JetStream) (leader string) {
	tr.Helper()
	tr.await("all copies of the stream are up to date", func(ctx context.Context) bool {
		s, err := js.Stream(ctx, bus.StreamName)
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		info := s.CachedInfo().Cluster
		leader = info.Leader
		return leader != "" && len(info.Replicas) == 2 && info.Replicas[0].Current && info.Replicas[1].Current
	})
	return leader
}

func TestFaults_leaderOfTheStreamKilled(t *testing.T) {
	brief(t)
	d, nats := database(t), startCluster(t)
	tr := try(t, "NATS: three servers, the stream's leader kill -9, started again", nats, d, "--stream-replicas", "3", "--stream-max", "2GiB")
	js := jetStream(t, nats)
	tr.startWriter()
	tr.begin()
	leader := nats.members[nats.inStep(tr, js)]
	leader.running.kill(t)
	tr.wait(tr.scale.dbAway)
	tr.cure()
	without := tr.caught
	leader.launch(t)
	leader.running.says(t, "ready")
	nats.inStep(tr, js)
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the other two went on, caught up %.1f s after the kill; the third filled itself again", (without + tr.scale.dbAway).Seconds())
}
