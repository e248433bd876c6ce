package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/export"
	"github.com/seed-452fa805/siptrace/internal/forward"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// TargetFlags say where events go, and how fast. None of them is read from the
// environment: what other programs send to must not become what this one does.
type TargetFlags struct {
	To        string       `help:"Where events go: a database (postgres://USER@HOST/DB, sqlite:FILE), a collector (hep+udp://HOST, hep+tcp://HOST, hep+tls://HOST, sip:HOST), or a file (pcap:FILE, pcapng:FILE, hep:FILE, text:FILE, json:FILE; \"-\" is standard output)." env:"-" placeholder:"TARGET"`
	Rate      Rate         `help:"At most so many events a second: 500/s, 30000/m; 0 is as fast as can be." default:"0/s" env:"-" placeholder:"N/s"`
	Retry     app.Duration `help:"How long to go on trying when the target takes nothing." default:"1m" env:"-" placeholder:"DURATION"`
	Overwrite bool         `help:"Replace a file that is there." env:"-"`
}

// A targetKind is what sort of thing a target is.
type targetKind int

const (
	toFile targetKind = iota
	toStore
	toCollector
)

// kind says what --to is, or what is wrong with it.
func (f *TargetFlags) kind() (targetKind, error) {
	scheme, _, _ := strings.Cut(f.To, ":")
	var err error
	switch {
	case f.To == "":
		return 0, app.Usagef("no target: name one with --to, for example --to pcap:calls.pcap")
	case export.Accepts(f.To):
		if _, err = export.Parse(f.To); err == nil {
			return toFile, nil
		}
	case scheme == "sqlite", scheme == "postgres", scheme == "postgresql":
		if err = open.Check(f.To); err == nil {
			return toStore, nil
		}
	case strings.HasPrefix(scheme, "hep+"), strings.HasPrefix(scheme, "sip"):
		if _, err = forward.ParseDestination(f.To); err == nil {
			return toCollector, nil
		}
	default:
		err = fmt.Errorf("target %q: use a database (postgres://, sqlite:), a collector (hep+udp://, hep+tcp://, hep+tls://, sip:) or a file (pcap:, pcapng:, hep:, text:, json:)", app.Redact(f.To))
	}
	return 0, app.UsageError{Err: err}
}

// stdout reports whether events go to standard output.
func (f *TargetFlags) stdout() bool {
	t, err := export.Parse(f.To)
	return err == nil && t.Stdout()
}

// Special wishes of those who open a target.
type targetOptions struct {
	table        string // a database: the table that must be there
	createTables bool
	append       bool // a file: go on behind what is there
}

// A target is where events go.
type target struct {
	trace.Sink
	kind   targetKind
	name   string                          // for people
	ready  func(ctx context.Context) error // why nothing can be written now
	close  func() error
	drop   func() error     // removes what has stayed empty
	result func(o *outcome) // fills in what only the target knows
}

// open opens the target, and makes sure that it takes something now.
func (f *TargetFlags) open(env *Env, o targetOptions) (*target, error) {
	kind, err := f.kind()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	var t *target
	switch kind {
	case toFile:
		t, err = f.openFile(env, o)
	case toStore:
		t, err = f.openStore(env, o, log)
	default:
		t, err = f.openCollector(log)
	}
	if err != nil {
		return nil, err
	}
	t.kind = kind
	ready, cancel := context.WithTimeout(env, readyTimeout)
	defer cancel()
	if err := t.ready(ready); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// readyTimeout is how long a target may take to say that it is there.
const readyTimeout = 15 * time.Second

func (f *TargetFlags) openFile(env *Env, o targetOptions) (*target, error) {
	parsed, err := export.Parse(f.To)
	if err != nil {
		return nil, err
	}
	file, err := export.Create(parsed, export.Options{Overwrite: f.Overwrite, Append: o.append, Stdout: env.Stdout})
	if errors.Is(err, export.ErrExists) {
		return nil, fmt.Errorf("%w; --overwrite replaces it", err)
	}
	if err != nil {
		return nil, err
	}
	return &target{
		Sink:  file,
		name:  parsed.String(),
		ready: func(context.Context) error { return nil },
		close: file.Close,
		drop: func() error {
			st, err := os.Lstat(parsed.Path)
			if parsed.Stdout() || o.append || err != nil || !st.Mode().IsRegular() {
				return nil // a device, a pipe or a link stays
			}
			return os.Remove(parsed.Path)
		},
		result: func(out *outcome) {
			c := file.Counts()
			out.NotSIP, out.Cut, out.Bytes = c.LeftOut, c.Cut, c.Bytes
			out.did = fmt.Sprintf("%s in %s", counted(c.Events, "message"), humanize.IBytes(uint64(c.Bytes)))
		},
	}, nil
}

func (f *TargetFlags) openStore(env *Env, o targetOptions, log *slog.Logger) (*target, error) {
	reg := prometheus.NewRegistry()
	options := store.Options{Table: o.table, CreateTables: o.createTables, Registerer: reg, Log: log}
	if o.createTables {
		options.Table = "" // it may not be there yet
	}
	s, err := open.Writer(env, f.To, options)
	if err != nil {
		return nil, err
	}
	return &target{
		Sink: s,
		name: app.Redact(f.To),
		ready: func(ctx context.Context) error {
			err := s.Ready(ctx)
			if err != nil && o.table != "" && !o.createTables {
				err = fmt.Errorf("%w; --create-tables makes %s", err, o.table)
			}
			return err
		},
		close: s.Close,
		result: func(out *outcome) {
			rows, there := counter(reg, "siptrace_db_writer_rows_total"), counter(reg, "siptrace_db_writer_duplicates_total")
			out.Rows, out.There = &rows, &there
			out.did = fmt.Sprintf("%s written, %s there already", counted(rows, "row"), were(there, ""))
		},
	}, nil
}

// were is a number of things that were somewhere: "1 was", "2 frames were".
func were[N ~int | ~uint64](n N, what string) string {
	switch {
	case what == "" && n == 1:
		return "1 was"
	case what == "":
		return count(n) + " were"
	case n == 1:
		return "1 " + what + " was"
	}
	return counted(n, what) + " were"
}

func (f *TargetFlags) openCollector(log *slog.Logger) (*target, error) {
	d, err := forward.ParseDestination(f.To)
	if err != nil {
		return nil, err
	}
	sink, err := forward.Open(d, forward.Options{}, prometheus.NewRegistry(), log)
	if err != nil {
		return nil, err
	}
	return &target{Sink: sink, name: d.String(), ready: sink.Check, close: sink.Close, result: func(*outcome) {}}, nil
}

// counter is the value of a metric without labels.
func counter(reg *prometheus.Registry, name string) int {
	families, err := reg.Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) > 0 {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	return 0
}
