package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A Check says what one part of a service waits for; nil when it waits for
// nothing. Its error is shown to people as it is.
type Check struct {
	Name string
	Func func(ctx context.Context) error
}

// checkTimeout bounds all checks of one request to /readyz.
const checkTimeout = 2 * time.Second

// NewRegistry returns a registry with the process and Go runtime metrics.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return reg
}

// Server answers /metrics, /healthz and /readyz.
type Server struct {
	ln   net.Listener
	http http.Server
	log  *slog.Logger
	wg   sync.WaitGroup
}

// Listen opens the listener and answers nothing yet; see [Server.Start].
func Listen(addr string, reg *prometheus.Registry, log *slog.Logger, checks ...Check) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("http: %w; choose another --http address, or --http= for none", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /readyz", ready(checks))
	s := &Server{ln: ln, log: log}
	s.http.Handler = mux
	s.http.ReadHeaderTimeout = 5 * time.Second
	return s, nil
}

// Addr is the address that clients reach.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Start serves until [Server.Stop].
func (s *Server) Start() {
	s.wg.Go(func() {
		if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("http ended", "err", err)
		}
	})
}

// Stop ends the server; requests under way get until ctx is done.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	s.wg.Wait()
	return err
}

// ready answers 200 with "ready", or 503 with a line for each part that waits.
func ready(checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		waiting := Waiting(r.Context(), checks)
		if len(waiting) == 0 {
			fmt.Fprintln(w, "ready")
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(waiting, "\n"))
	})
}

// Waiting runs the checks side by side and returns, in their order, a line
// for each that fails: "database: waiting for …".
func Waiting(ctx context.Context, checks []Check) []string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	errs := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { errs[i] = c.Func(ctx) })
	}
	wg.Wait()
	var lines []string
	for i, err := range errs {
		if err != nil {
			lines = append(lines, checks[i].Name+": "+err.Error())
		}
	}
	return lines
}
