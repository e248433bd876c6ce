// Command sipgo-proxy is a small SIP proxy that is built on sipgo and traced by
// sipgotap: an example, and a thing to put load on.
//
//	sipgo-proxy --listen 127.0.0.1:5060 --to 127.0.0.1:5080 --hep hep+udp://127.0.0.1:9060
//
// Requests that are for nobody else go to --to. When it ends it prints as JSON
// what it has received and sent, and what its tap has seen.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
)

// options are the command line.
type options struct {
	listen string // address for UDP and TCP; a real one, for it goes into Via and Record-Route
	to     string // where requests go that name no other place
	hep    string // who gets the trace; empty is nobody
	http   string // address for GET /; empty is none
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:5060", "`address` for UDP and TCP, no wildcard")
	flag.StringVar(&o.to, "to", "127.0.0.1:5080", "`address` of the next hop")
	flag.StringVar(&o.hep, "hep", "hep+udp://127.0.0.1:9060", "`URL` of the tap or collector; empty for no tracing")
	flag.StringVar(&o.http, "http", "", "`address` where GET / shows the counters; empty for none")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	setUp(log)
	if err := run(ctx, o, os.Stdout, log); err != nil {
		log.Error("ended", "err", err)
		os.Exit(1)
	}
}

// setUp sets what sipgo has for the whole process: its logger, and sizes that
// let through what fits into a datagram.
func setUp(log *slog.Logger) {
	sip.SetDefaultLogger(log)
	sip.UDPMTUSize = 65535
	sip.TransportBufferReadSize = 65535
}

// report is what the proxy prints.
type report struct {
	Messages map[string]uint64 // by direction, status and method: "in INVITE", "out 200 INVITE"
	Tap      sipgotap.Stats
}

// run is the proxy, until ctx is done.
func run(ctx context.Context, o options, out io.Writer, log *slog.Logger) (err error) {
	tap := sipgotap.New(sipgotap.Options{Agent: trace.Agent{Name: "sipgo-proxy"}, Log: log})
	count := newCounters()
	show := func(w io.Writer) error {
		return json.NewEncoder(w).Encode(report{count.all(), tap.Stats()})
	}
	defer func() { err = errors.Join(err, show(out)) }() // when all is said and done
	if o.hep != "" {
		stop, err := startTap(tap, o.hep)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	p, err := newProxy(o, tap, count, log)
	if err != nil {
		return err
	}
	if o.http != "" {
		stop, err := serveHTTP(o.http, show, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	return p.serve(ctx)
}

// startTap brings what the tap sees to a collector, until stop.
func startTap(tap *sipgotap.Tap, hep string) (stop func() error, err error) {
	sink, err := sipgotap.NewHEPSink(hep)
	if err != nil {
		return nil, err
	}
	remove := tap.Install()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tap.Run(ctx, sink) }()
	return func() error {
		remove()
		cancel()
		return errors.Join(<-done, sink.Close())
	}, nil
}

// serveHTTP shows the counters to who asks, until stop.
func serveHTTP(addr string, show func(io.Writer) error, log *slog.Logger) (stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for http: %w", err)
	}
	s := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err := show(w); err != nil {
				log.Debug("show counters", "err", err)
			}
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // until Close
	}()
	return func() {
		_ = s.Close()
		<-done
	}, nil
}

// counters count messages by what they are.
type counters struct {
	mu sync.Mutex
	n  map[string]uint64
}

func newCounters() *counters { return &counters{n: make(map[string]uint64)} }

func (c *counters) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[what]++
}

func (c *counters) request(way string, r *sip.Request) { c.add(way + " " + r.Method.String()) }

func (c *counters) response(way string, r *sip.Response) {
	method := "?"
	if h := r.CSeq(); h != nil {
		method = h.MethodName.String()
	}
	c.add(fmt.Sprintf("%s %d %s", way, r.StatusCode, method))
}

// all is what has been counted.
func (c *counters) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]uint64, len(c.n))
	for what, n := range c.n {
		all[what] = n
	}
	return all
}

// asIs sends a request as it is: a proxy adds no From, and no Call-ID.
func asIs(*sipgo.Client, *sip.Request) error { return nil }
