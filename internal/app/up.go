package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
)

// UpFlags are the flags of ctl up.
type UpFlags struct {
	DryFlags
	LogFlags
	Dir        string   `help:"Folder for the stream and the database, siptrace.db in it." default:"${dir}" placeholder:"DIR"`
	In         []string `help:"Where traced messages come from, repeatable; see tap --help. Default: HEP over UDP and TCP at 127.0.0.1:9060." sep:"none" placeholder:"URL"`
	NATSListen string   `name:"nats-listen" help:"Where the embedded NATS listens for ctl and other services." default:"127.0.0.1:4222" placeholder:"HOST:PORT"`
	HTTP       string   `name:"http" help:"Address for /metrics, /healthz and /readyz; empty for none." default:"127.0.0.1:9080" placeholder:"HOST:PORT"`
	StreamMax  Size     `help:"How much the stream keeps; 0 is 10GiB, or less where the disk has less room." default:"0" placeholder:"SIZE"`
	StreamAge  Duration `help:"How long the stream keeps events." default:"2d" placeholder:"DURATION"`
	AgentName  string   `name:"agent-name" help:"The tap's name. Default: the host's name." placeholder:"NAME"`
}

// AfterApply fills in what is listened to unless told otherwise.
func (f *UpFlags) AfterApply() error {
	if len(f.In) == 0 {
		f.In = []string{"hep+udp://127.0.0.1:9060", "hep+tcp://127.0.0.1:9060"}
	}
	return nil
}

// Validate reports the first wrong value.
func (f *UpFlags) Validate() error {
	for _, in := range f.In {
		if _, err := parseInput(in); err != nil {
			return err
		}
	}
	if err := checkAddr("--nats-listen", f.NATSListen); err != nil {
		return err
	}
	if f.HTTP != "" {
		if err := checkAddr("--http", f.HTTP); err != nil {
			return err
		}
	}
	if f.Dir == "" {
		return errors.New("--dir is empty: name a folder")
	}
	return nil
}

// Database is the file of the embedded database.
func (f *UpFlags) Database() string { return filepath.Join(f.Dir, "siptrace.db") }

// DefaultDir is where ctl up keeps its data and where ctl looks for it.
func DefaultDir() string { return filepath.Join(userState(), "siptrace") }

// Up runs NATS, a tap and a db-writer on SQLite in this process until ctx is
// done, and says on w what to do with them; self is how ctl was called. It
// returns the exit code.
func Up(ctx context.Context, f UpFlags, self string, w io.Writer, log *slog.Logger) int {
	if err := os.MkdirAll(f.Dir, 0o750); err != nil {
		log.Error("not started", "err", err)
		return ExitFailed
	}
	server, err := natsd.Start(natsd.Options{Dir: filepath.Join(f.Dir, "nats"), Listen: f.NATSListen, Log: log})
	if err != nil {
		log.Error("not started", "err", err)
		return ExitFailed
	}
	defer server.Shutdown()

	streams := bus.StreamConfig{MaxAge: time.Duration(f.StreamAge), MaxBytes: int64(f.StreamMax)}
	if err := makeStreams(ctx, server, streams, log); err != nil {
		log.Error("not started", "err", err)
		return ExitFailed
	}
	conn := func(name string) bus.Options {
		return bus.Options{URL: server.ClientURL(), Name: name, InProcess: server}
	}
	tap := TapFlags{In: f.In, Mode: "all", AgentName: f.AgentName, Buffer: 64 << 20, Compress: bus.CompressS2, Data: f.Dir, SpoolFlags: SpoolFlags{Spool: "off"}}
	writer := WriterFlags{
		Store: "sqlite:" + f.Database(), Table: "sip_trace", Durable: "db-writer", Batch: 5000,
		Linger: Duration(200 * time.Millisecond), Connections: 1, AutoSchema: true, CreateTables: true, Partition: "day", Durability: "full",
	}
	return Run(ctx, log,
		Base(log),
		WriterModule(writer, conn("db-writer"), streams),
		TapModule(tap, conn("tap"), streams),
		Observe(f.HTTP, false),
		fx.Invoke(func(lc fx.Lifecycle) {
			lc.Append(fx.StartHook(func() { welcome(w, f, self, server.ClientURL()) }))
		}),
	)
}

// makeStreams makes the streams before anybody looks for them.
func makeStreams(ctx context.Context, server *natsd.Server, streams bus.StreamConfig, log *slog.Logger) error {
	c, err := bus.Connect(bus.Options{URL: server.ClientURL(), Name: "up", InProcess: server}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Await(ctx); err != nil {
		return err
	}
	return ensure(ctx, c, streams, log)
}

// demoTarget is what ctl demo needs to be told when its default is not
// listened at.
func demoTarget(in []string) string {
	if slices.Contains(in, "hep+udp://127.0.0.1:9060") {
		return ""
	}
	for _, url := range in {
		bare, _, _ := strings.Cut(url, "?")
		if strings.HasPrefix(bare, "hep+udp:") || strings.HasPrefix(bare, "hep+tcp:") {
			return " " + bare
		}
	}
	return ""
}

// welcome says where to send and what to type next.
func welcome(w io.Writer, f UpFlags, self, nats string) {
	store, search := "sqlite:"+f.Database(), ""
	if f.Dir != DefaultDir() {
		search = " --store " + store
	}
	server := ""
	if !strings.HasSuffix(nats, "127.0.0.1:4222") {
		server = " --nats " + nats
	}
	metrics := "none, for --http is empty"
	if f.HTTP != "" {
		metrics = "http://" + f.HTTP + "/metrics"
	}
	fmt.Fprintf(w, `siptrace is up

  send HEP to     %s
  NATS            %s
  database        %s
  metrics         %s

type next, in another terminal:
`, strings.Join(f.In, "\n                  "), nats, store, metrics)
	for _, next := range []struct{ command, flags, what string }{
		{"demo", demoTarget(f.In), "send a few calls"},
		{"tail", server, "watch messages as they come"},
		{"search", search, "what is stored"},
		{"flow CALL-ID", search, "one call as a ladder"},
		{"trace off", server, "stop tracing on every tap; on, check"},
		{"status", server, "taps, workers, lag, losses"},
	} {
		fmt.Fprintf(w, "  %-32s %s\n", self+" "+next.command+next.flags, next.what)
	}
	fmt.Fprintf(w, "\nCtrl-C ends it; the data stays in %s\n", f.Dir)
}
