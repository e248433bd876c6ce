// Package natsd runs a NATS server with JetStream inside this process, so that
// siptrace works on one machine with nothing installed. Other processes may
// join it at [Server.ClientURL].
package natsd

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// DefaultListen is where NATS clients expect a server.
	DefaultListen = "127.0.0.1:4222"

	startTimeout = 30 * time.Second      // recovering a full store takes seconds
	startPoll    = 50 * time.Millisecond // how soon a fatal start is noticed
)

// Options say where the server keeps its data and where it listens.
type Options struct {
	Dir        string // holds the JetStream store; made when missing
	Listen     string // host:port; empty is DefaultListen, port 0 or -1 any free port
	MaxStore   int64  // bytes JetStream may use on disk; 0 is three quarters of what is free
	SyncAlways bool   // an acknowledged message is on disk, not only in the page cache
	Log        *slog.Logger
}

// Server is a running NATS server. Shut it down when done.
type Server struct {
	ns *server.Server
}

// Start runs a server and returns when it accepts clients.
func Start(o Options) (*Server, error) {
	so, err := serverOptions(o)
	if err != nil {
		return nil, err
	}
	if err := portFree(so); err != nil {
		return nil, err
	}
	ns, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	log := &logger{log: o.Log}
	ns.SetLoggerV2(log, false, false, false)
	go ns.Start() // Start returns when it has set up; Shutdown and WaitForShutdown end what it began

	deadline := time.Now().Add(startTimeout)
	for !ns.ReadyForConnections(startPoll) {
		fatal := log.fatalError()
		if fatal == nil && time.Now().Before(deadline) {
			continue
		}
		ns.Shutdown()
		ns.WaitForShutdown()
		if fatal == nil {
			fatal = fmt.Errorf("not ready after %v", startTimeout)
		}
		return nil, fmt.Errorf("embedded NATS server in %s: %w", o.Dir, fatal)
	}
	return &Server{ns}, nil
}

// serverOptions translates o. The store directory is always explicit, for the
// server's own default is the temporary directory.
func serverOptions(o Options) (*server.Options, error) {
	if o.Dir == "" {
		return nil, errors.New("embedded NATS server: no directory for its store")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: %w", err)
	}
	if o.Log == nil {
		return nil, errors.New("embedded NATS server: no logger")
	}
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	host, portText, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("embedded NATS server: listen address %q: %w", o.Listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < -1 || port > math.MaxUint16 {
		return nil, fmt.Errorf("embedded NATS server: listen address %q: bad port", o.Listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return &server.Options{
		ServerName:        "siptrace-embedded",
		Host:              host,
		Port:              port,
		JetStream:         true,
		StoreDir:          dir,
		JetStreamMaxStore: o.MaxStore,
		SyncAlways:        o.SyncAlways,
		NoSigs:            true, // signals belong to the program
	}, nil
}

// portFree says in plain words what the server would only write to its log.
func portFree(so *server.Options) error {
	if so.Port == server.RANDOM_PORT {
		return nil
	}
	addr := net.JoinHostPort(so.Host, strconv.Itoa(so.Port))
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("embedded NATS server: %s is taken by another program: stop it, use it as the NATS server, or listen on another port (0 picks a free one): %w", addr, err)
	case err != nil:
		return fmt.Errorf("embedded NATS server: listen on %s: %w", addr, err)
	}
	return l.Close()
}

// ClientURL is where clients in other processes connect: nats://127.0.0.1:4222.
func (s *Server) ClientURL() string { return s.ns.ClientURL() }

// InProcessConn connects a client of this process without a socket. It lets a
// Server be given to nats.InProcessServer.
func (s *Server) InProcessConn() (net.Conn, error) { return s.ns.InProcessConn() }

// Shutdown stops the server and returns when its store is closed.
func (s *Server) Shutdown() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}
