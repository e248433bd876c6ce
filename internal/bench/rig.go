package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"
)

// A rig is the folder of a run and everything that was started in it.
type rig struct {
	place Place
	dir   string
	say   io.Writer
	ends  []func() error // in the order of starting
}

// newRig makes the folder. It must be on a disk with room for need bytes.
func newRig(p Place, need int64, say io.Writer) (_ *rig, err error) {
	if p.Cores < 1 {
		return nil, errors.New("--cores: at least one is needed")
	}
	dir, err := os.MkdirTemp(p.Dir, "siptrace-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{place: p, dir: dir, say: say}
	r.ends = append(r.ends, func() error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL may have to run as another user
		return nil, err
	}
	free, memory, err := room(dir)
	switch {
	case err != nil:
		return nil, err
	case memory:
		return nil, fmt.Errorf("%s is in memory, not on a disk: name another folder with --dir", dir)
	case free < need:
		return nil, fmt.Errorf("%s has %s free, and about %s are needed: name another folder with --dir, or ask for less",
			dir, humanize.IBytes(uint64(free)), humanize.IBytes(uint64(need)))
	}
	return r, nil
}

// close ends everything, the last first, and removes the folder.
func (r *rig) close() error {
	var err error
	for _, end := range slices.Backward(r.ends) {
		err = errors.Join(err, end())
	}
	r.ends = nil
	return err
}

func (r *rig) printf(format string, args ...any) { fmt.Fprintf(r.say, format+"\n", args...) }

// start starts one of the programs that were built.
func (r *rig) start(name string, env []string, args ...string) (*process, error) {
	program := filepath.Join(r.place.Bin, name)
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%w; build it with: %s", err, howToBuild(name))
	}
	p, err := launch(program, r.dir, r.place.Cores, env, args...)
	if err != nil {
		return nil, err
	}
	r.ends = append(r.ends, p.stop)
	return p, nil
}

func howToBuild(name string) string {
	if name == "nats-server" {
		return "go build -o bin/nats-server github.com/nats-io/nats-server/v2"
	}
	return "make build"
}

// A natsServer is one that runs.
type natsServer struct {
	*process
	url, version string
}

// nats starts a server that keeps its streams in files.
func (r *rig) nats(ctx context.Context) (*natsServer, error) {
	port, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	sync := ""
	if r.place.SyncAlways {
		sync = "sync_interval: always"
	}
	conf := filepath.Join(r.dir, "nats.conf")
	text := fmt.Sprintf("listen: 127.0.0.1:%d\njetstream {\n  store_dir: %q\n  %s\n}\n", port, filepath.Join(r.dir, "nats"), sync)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := r.start("nats-server", nil, "-c", conf)
	if err != nil {
		return nil, err
	}
	s := &natsServer{process: p, url: fmt.Sprintf("nats://127.0.0.1:%d", port)}
	err = p.await(ctx, func(context.Context) error {
		nc, err := nats.Connect(s.url)
		if err != nil {
			return err
		}
		s.version = nc.ConnectedServerVersion()
		nc.Close()
		return nil
	})
	return s, err
}

// A service is one of siptrace's own programs.
type service struct {
	*process
	http string
}

// service starts a tap or a worker and waits until it is ready.
func (r *rig) service(ctx context.Context, name string, bus *natsServer, env []string, args ...string) (*service, error) {
	port, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	s := &service{http: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	s.process, err = r.start(name, env, append([]string{"--nats", bus.url, "--http", s.http, "--log-format", "text"}, args...)...)
	if err != nil {
		return nil, err
	}
	return s, s.await(ctx, func(ctx context.Context) error {
		_, err := get(ctx, "http://"+s.http+"/readyz")
		return err
	})
}

// metrics asks the service for its metrics.
func (s *service) metrics(ctx context.Context) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.alive(); err != nil {
		return nil, err
	}
	m, err := scrape(ctx, s.http)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return m, nil
}

// freePort returns a port of the loopback interface that nobody uses now.
func freePort(network string) (int, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
