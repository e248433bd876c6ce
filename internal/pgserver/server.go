// Package pgserver starts a private PostgreSQL from the binaries that are
// installed, for tests and benchmarks. It listens on a free port of the
// loopback interface, keeps to one directory, and can be stopped, killed,
// paused and started again under a client.
package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrNotInstalled means that there is no PostgreSQL on this machine.
var ErrNotInstalled = errors.New("no PostgreSQL server is installed")

// Settings for a server that keeps nothing: tests need neither safety nor much memory.
const (
	NoSync      = "fsync=off"
	SmallMemory = "shared_buffers=32MB"
)

// A Server is a running PostgreSQL. Its methods are for one goroutine.
type Server struct {
	bin      string // the directory of initdb and postgres
	dir      string
	ownDir   bool // made by Start, and to be removed
	settings []string
	port     int
	password string

	process *os.Process
	ended   chan struct{} // closed when process has ended
}

// Start makes a database cluster in dir and starts a server on it, with
// settings like "fsync=off". An empty dir is one of the server's own, which
// Stop removes. PostgreSQL does not run as root: started by root it runs as the
// user postgres or nobody, who must be able to get to dir, and to whom dir is given.
func Start(dir string, settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, settings: settings, password: rand.Text()}
	if dir == "" {
		if s.dir, err = os.MkdirTemp("", "pgserver"); err != nil {
			return nil, err
		}
		s.ownDir = true
	}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := s.launch(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// URL is where the superuser finds the database postgres.
func (s *Server) URL() string { return s.DatabaseURL("postgres") }

// DatabaseURL is where the superuser finds a database.
func (s *Server) DatabaseURL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     s.Addr(),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr is the host and port that the server listens on.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Stop ends the server and every connection to it, and removes its own directory.
func (s *Server) Stop() error {
	return errors.Join(s.end(syscall.SIGINT), s.remove())
}

// Kill ends the server as a crash would. Launch it again with Restart.
func (s *Server) Kill() error { return s.end(syscall.SIGQUIT) }

// Restart ends the server, if it runs, and starts it again on the same port.
func (s *Server) Restart() error {
	if err := s.end(syscall.SIGINT); err != nil {
		return err
	}
	return s.launch()
}

// Pause stops all processes of the server where they are. Connections stay
// open and nobody answers.
func (s *Server) Pause() error {
	err := pause(s.process) // first, so that it starts no more
	for _, p := range children(s.process.Pid) {
		err = errors.Join(err, ignoreDone(pause(p)))
	}
	return err
}

// Resume lets a paused server go on.
func (s *Server) Resume() error {
	var err error
	for _, p := range children(s.process.Pid) {
		err = errors.Join(err, ignoreDone(resume(p)))
	}
	return errors.Join(err, ignoreDone(resume(s.process)))
}

// CPU is the processor time that the server's running processes have used so
// far: on a busy machine a better measure of work than the clock. It is 0 where
// it cannot be known.
func (s *Server) CPU() time.Duration {
	var sum time.Duration
	for _, p := range children(s.process.Pid) {
		sum += max(0, cpuTime(p.Pid))
	}
	return sum
}

const superuser = "postgres"

// init makes the cluster.
func (s *Server) init() error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := handOver(s.dir, password); err != nil {
		return err
	}
	cmd, err := s.command("initdb", "-D", s.data(), "-U", superuser, "--pwfile="+password, "-A", "scram-sha-256",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// launch starts the server and waits until it answers.
func (s *Server) launch() error {
	if s.port == 0 {
		var err error
		if s.port, err = freePort(); err != nil {
			return err
		}
	}
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "logging_collector=off"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := s.command("postgres", args...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	s.process, s.ended = cmd.Process, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return s.await()
}

// freePort returns a port of the loopback interface that nobody uses. It is below
// those that systems pick by themselves: nobody takes it before the server has
// it, or while the server is away.
func freePort() (int, error) {
	for range 1000 {
		port := 6000 + mathrand.IntN(3000)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port on the loopback interface")
}

// await waits until the server takes connections.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := pgconn.Connect(ctx, s.URL())
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-s.ended:
			log, _ := os.ReadFile(s.log())
			return fmt.Errorf("postgres ended: %s", log)
		case <-ctx.Done():
			return errors.Join(err, s.end(syscall.SIGQUIT))
		case <-tick.C:
		}
	}
}

// end sends the server a signal and waits for its end.
func (s *Server) end(signal syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.Resume(); err != nil {
		return err
	}
	if err := ignoreDone(s.process.Signal(signal)); err != nil {
		return err
	}
	<-s.ended
	s.process = nil
	return nil
}

// ignoreDone passes over the error of a signal to a process that has ended.
func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (s *Server) remove() error {
	if !s.ownDir {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.dir, "log") }

// command is one of PostgreSQL's programs, to be run as a user it will run as.
func (s *Server) command(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var err error
	cmd.SysProcAttr, err = attributes()
	return cmd, err
}
