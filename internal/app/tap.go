package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/capture"
	"github.com/seed-452fa805/siptrace/internal/listen"
	"github.com/seed-452fa805/siptrace/internal/rules"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// TapFlags are what makes a tap: where messages come from and how they reach
// the bus.
type TapFlags struct {
	In         []string `help:"Where traced messages come from, repeatable: hep+udp://:9060, hep+tcp://:9060, hep+tls://:9061?cert=FILE&key=FILE, siptrace+udp://:5066, pcap:FILE. Default: HEP over UDP and TCP at port 9060." sep:"none" placeholder:"URL"`
	Mode       string   `help:"all: the global state selects every message; rules: only what a rule selects." enum:"all,rules" default:"all"`
	AgentID    uint32   `name:"agent-id" help:"Capture id of messages whose sender gives neither id nor name." placeholder:"N"`
	AgentName  string   `name:"agent-name" help:"This tap's name; also the agent of messages whose sender gives neither id nor name. Default: the host's name." placeholder:"NAME"`
	Buffer     Size     `help:"Memory for what the bus has not taken yet; what does not fit is dropped and counted." default:"64MiB" placeholder:"SIZE"`
	Compress   string   `help:"s2: frames on the bus are compressed; none: any HEP tool can read them." enum:"s2,none" default:"s2"`
	Dialogs    int      `help:"Calls that rules follow at a time; beyond, those that are over or have been silent longest are left." default:"100000" placeholder:"N"`
	DialogIdle Duration `help:"How long rules follow a call behind its last message." default:"3h" placeholder:"DURATION"`
	Data       string   `help:"Folder where the last known trace state and rules are kept, for starts without NATS; \"off\" for none. Default: $$STATE_DIRECTORY, else siptrace in the user's state folder." placeholder:"DIR"`
	Once       bool     `help:"End when every file given with --in has been read."`
	SpoolFlags

	shards int  // as far as this process was told
	waits  bool // for addresses that are taken
	EdgeFlags
}

// TapOptions are the flags of the tap command.
type TapOptions struct {
	ServiceFlags
	TapFlags
}

func (o *TapOptions) common() *ServiceFlags { return &o.ServiceFlags }

func (o *TapOptions) defaultHTTP() string { return ":9081" }

// Validate reports the first wrong value.
func (o *TapOptions) Validate() error {
	if err := bus.CheckURL(o.NATS); err != nil {
		return err
	}
	return o.TapFlags.validate()
}

// AfterApply fills in what a tap listens to unless it is told otherwise. A
// default of the flag itself could only be one URL: they may hold any separator.
func (f *TapFlags) AfterApply() error {
	if len(f.In) == 0 {
		f.In = []string{"hep+udp://:9060", "hep+tcp://:9060"}
	}
	return nil
}

// check opens the files that inputs name.
func (o *TapOptions) check() error {
	for _, url := range o.In {
		in, err := parseInput(url)
		if err == nil {
			err = in.check()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *TapFlags) validate() error {
	if err := f.EdgeFlags.validate(); err != nil {
		return err
	}
	files := 0
	for _, in := range f.In {
		if isFile(in) {
			files++
		}
		if _, err := parseInput(in); err != nil {
			return err
		}
	}
	if err := bus.CheckBuffer(int64(f.Buffer)); err != nil {
		return fmt.Errorf("--buffer: %w", err)
	}
	if f.Dialogs < 0 || f.Dialogs > maxDialogs {
		return fmt.Errorf("--dialogs %d: want a number up to %d", f.Dialogs, maxDialogs)
	}
	if f.Once && (files == 0 || files != len(f.In)) {
		return errors.New("--once goes with files only: every --in must be pcap:FILE")
	}
	return f.SpoolFlags.validate()
}

// maxDialogs keeps the table of calls from being larger than machines are.
const maxDialogs = 50_000_000

// An input is one --in: how to open it.
type input struct {
	url   string
	open  func(g *listen.Guard, reg prometheus.Registerer, log *slog.Logger) (trace.Source, error)
	check func() error // reads the files it names
	file  bool
}

func isFile(url string) bool { return strings.HasPrefix(url, "pcap:") }

// parseInput reads one --in.
func parseInput(url string) (input, error) {
	if isFile(url) {
		path, err := capture.ParsePcap(url)
		if err != nil {
			return input{}, err
		}
		check := func() error {
			if path == "-" {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		}
		return input{url: Redact(url), file: true, check: check, open: func(_ *listen.Guard, reg prometheus.Registerer, log *slog.Logger) (trace.Source, error) {
			return capture.OpenPcap(path, capture.PcapOptions{}, reg, log)
		}}, nil
	}
	in, err := listen.ParseInput(url)
	if err != nil && !listen.Accepts(url) {
		err = fmt.Errorf("%w; a file is pcap:FILE", err)
	}
	if err != nil {
		return input{}, err
	}
	return input{url: Redact(url), check: in.Check, open: func(g *listen.Guard, reg prometheus.Registerer, log *slog.Logger) (trace.Source, error) {
		return in.Guarded(g).Listen(reg, log)
	}}, nil
}

// Module wires the tap service.
func (o *TapOptions) Module() fx.Option {
	name := cmp.Or(o.AgentName, hostname())
	conn := o.Options("tap-" + name)
	conn.InboxPrefix = "_INBOX_tap" // of every tap, so that one set of permissions fits them all
	o.waits = true
	return TapModule(o.TapFlags, conn, o.streams())
}

// TapModule is a tap: wire sources → intake → bus.
func TapModule(f TapFlags, conn bus.Options, streams bus.StreamConfig) fx.Option {
	f.AgentName = cmp.Or(f.AgentName, hostname())
	f.shards = streams.Shards
	return fx.Module("tap",
		fx.Supply(f, fx.Private),
		connect(conn, streams),
		fx.Provide(fx.Private, newGate, newRules, newEdges, newPublisher, func(log *slog.Logger) *ports { return newPorts(f.waits, log) }),
		fx.Provide(fx.Annotate((*ports).checks, fx.ResultTags(`group:"checks,flatten"`))),
		fx.Provide(fx.Annotate(
			func(p *bus.Publisher) telemetry.Check { return telemetry.Check{Name: "stream", Func: p.Check} },
			fx.ResultTags(`group:"checks"`),
		)),
		fx.Invoke(runTap, serveRPC),
	)
}

// newGate follows the global state from the first moment on.
func newGate(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, f TapFlags, log *slog.Logger) *Gate {
	g := new(Gate)
	path := f.dataFile("state")
	last := bus.State{On: true}
	if path != "" {
		var err error
		if last, err = bus.LoadState(path); err != nil {
			log.Warn("last known state not read, tracing goes on as if on", "file", path, "err", err)
		}
	}
	g.Set(last.Effective(time.Now()), last.Revision)
	runner(lc, sd, log, "state", func(ctx context.Context) error {
		return bus.NewStateStore(c).Watch(ctx, last, func(s bus.State) {
			now := s.Effective(time.Now())
			if now != g.Open() || s.Revision != g.Revision() {
				log.Info("trace state", "on", now, "revision", s.Revision, "who", s.Who, "why", s.Why)
			}
			g.Set(now, s.Revision)
			if path == "" {
				return
			}
			if err := keepState(path, s); err != nil {
				log.Warn("state not kept for the next start", "file", path, "err", err)
			}
		})
	})
	return g
}

// keepState keeps the state for a start without NATS.
func keepState(path string, s bus.State) error {
	if err := makeFolder(path); err != nil {
		return err
	}
	return bus.SaveState(path, s)
}

// makeFolder makes the folder of a file.
func makeFolder(path string) error { return os.MkdirAll(filepath.Dir(path), 0o750) }

// dataFile is the file of what is last known of the state or the rules, or ""
// for none.
func (f *TapFlags) dataFile(kind string) string {
	dir := f.Data
	switch {
	case dir == "off":
		return ""
	case dir != "":
	case os.Getenv("STATE_DIRECTORY") != "":
		dir = os.Getenv("STATE_DIRECTORY")
	default:
		dir = filepath.Join(userState(), "siptrace")
	}
	return filepath.Join(dir, kind+"-"+bus.Token(f.AgentName)+".json")
}

// userState is where a user's programs keep what must outlive them.
func userState() string {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return os.TempDir()
	}
	return filepath.Join(home, ".local", "state")
}

func newPublisher(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, f TapFlags, reg prometheus.Registerer, log *slog.Logger) (*bus.Publisher, error) {
	o := f.publisherOptions()
	var err error
	if o.Spool, err = openSpool(&f, reg, log); err != nil {
		return nil, err
	}
	p, err := bus.NewPublisher(c, o, reg, log)
	if err != nil {
		return nil, err
	}
	runner(lc, sd, log, "publisher", p.Run)
	runner(lc, sd, log, "shards", func(ctx context.Context) error {
		return c.WatchShards(ctx, max(1, f.shards), p.SetShards)
	})
	return p, nil
}

// runTap opens every input and runs it into the bus.
func runTap(lc fx.Lifecycle, sd fx.Shutdowner, c *bus.Conn, g *Gate, r *rules.Engine, e *edges, p *bus.Publisher, ports *ports, f TapFlags, reg prometheus.Registerer, gather *prometheus.Registry, log *slog.Logger) error {
	var unread atomic.Int32
	unread.Store(int32(len(f.In)))
	for i, url := range f.In {
		in, err := parseInput(url)
		if err != nil {
			return err
		}
		m, err := newIntakeMetrics(reg, sourceLabel(i, in.url))
		if err != nil {
			return err
		}
		sink := &intake{gate: g, all: f.Mode == "all", rules: r, agent: trace.Agent{ID: f.AgentID, Name: f.AgentName}, metrics: m}
		var out trace.Sink = p // a file can wait
		if !in.file {
			out = offering(p, m)
			runner(lc, sd, log, "losses", func(ctx context.Context) error {
				tellLosses(ctx, m, log.With("source", in.url))
				return nil
			})
		}
		first, err := e.around(sink, out, in.file, sourceLabel(i, in.url))
		if err != nil {
			return err
		}
		open := func() (trace.Source, error) { return e.open(in, log) }
		err = atPort(lc, sd, ports, "source "+in.url, open, func(ctx context.Context, src trace.Source) error {
			if closer, ok := src.(io.Closer); ok {
				defer closer.Close()
			}
			log.Info("source started", "in", in.url)
			err := src.Run(ctx, first)
			if in.file && !f.Once && err != nil && ctx.Err() == nil {
				log.Error("file not read to its end", "in", in.url, "err", err)
				return nil // the other inputs go on
			}
			if in.file && err == nil && ctx.Err() == nil {
				log.Info("file read to its end", "in", in.url)
				if f.Once && unread.Add(-1) == 0 {
					_ = sd.Shutdown()
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	serveNode(lc, c, gather, log, bus.NodeInfo{Service: "tap", Name: f.AgentName}, nodeReport{
		gate:    g,
		rules:   r,
		listens: e.listens,
		checks:  ports.checks(),
		counts: map[string]string{
			"in":  "siptrace_tap_events_received_total",
			"out": "siptrace_tap_published_events_total",
			"off": "siptrace_tap_events_unselected_total",
			"dropped": "siptrace_tap_events_overflow_total siptrace_tap_publish_dropped_events_total " +
				"siptrace_tap_hep_dropped_total siptrace_tap_sip_dropped_total siptrace_tap_spool_dropped_events_total",
			"spooled":      "siptrace_tap_spooled_events_total",
			"drained":      "siptrace_tap_spool_drained_events_total",
			"spool_bytes":  "siptrace_tap_spool_bytes",
			"spool_frames": "siptrace_tap_spool_frames",
		},
	})
	return nil
}

// sourceLabel names an input in metrics; the operator chose it.
func sourceLabel(i int, url string) string { return fmt.Sprintf("%d %s", i, url) }
