package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// StreamStatusCmd is ctl stream status.
type StreamStatusCmd struct {
	app.BusFlags
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Help is the end of ctl stream status --help.
func (*StreamStatusCmd) Help() string {
	return `Examples:
  ctl stream status
  ctl stream status --json | jq '.streams[].peers'`
}

// streamReport is everything ctl stream status knows.
type streamReport struct {
	Streams   []bus.StreamDetail   `json:"streams"`
	Consumers []bus.ConsumerStatus `json:"consumers"`
}

// Run looks and reports.
func (c *StreamStatusCmd) Run(env *Env) error {
	conn, err := connect(env, &c.BusFlags)
	if err != nil {
		return err
	}
	defer conn.Close()
	var r streamReport
	if r.Streams, err = conn.Details(env); err != nil {
		return err
	}
	if len(r.Streams) == 0 {
		return fmt.Errorf("no streams yet: %s stream apply --yes makes them, and so does every service", self())
	}
	if r.Consumers, err = conn.Consumers(env); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	if c.JSON {
		return json.NewEncoder(env.Stdout).Encode(r)
	}
	return r.print(env.Stdout, telemetry.IsTerminal(env.Stdout))
}

func (r *streamReport) print(w io.Writer, colour bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STREAM\tMESSAGES\tSIZE\tOF\tFILL\tOLDEST\tKEPT\tREPLICAS\tSTORAGE\tCOMPRESSION\tDUPLICATES")
	for _, s := range r.Streams {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Name, s.Frames, humanize.IBytes(s.Bytes), limit(s.MaxBytes),
			fill(s), ago(s.FirstTime), kept(s.MaxAge), s.Replicas, s.Storage, s.Compression, app.Duration(s.Duplicates))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := r.printPeers(w, colour); err != nil {
		return err
	}
	return (&report{Stream: r.events(), Consumers: r.Consumers}).printConsumers(w, colour)
}

// events is what consumers read: one stream, or several as shards of one.
func (r *streamReport) events() bus.StreamStatus {
	var all bus.StreamStatus
	for _, s := range r.Streams {
		switch {
		case s.Name == bus.StreamName:
			return s.StreamStatus
		case strings.HasPrefix(s.Name, bus.StreamName+"_") && s.Name != bus.RejectsStreamName:
			all.Shards = append(all.Shards, s.StreamStatus)
		}
	}
	return all
}

// printPeers says where the copies are, on a cluster.
func (r *streamReport) printPeers(w io.Writer, colour bool) error {
	var warnings []string
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	for _, s := range r.Streams {
		if s.Cluster == "" {
			continue
		}
		if rows == 0 {
			fmt.Fprintln(t, "STREAM\tSERVER\tROLE\tSTATE\tLAG\tHEARD OF")
		}
		rows++
		if s.Leader == "" {
			warnings = append(warnings, fmt.Sprintf("stream %s has no leader: nothing can be stored until most of its servers are back", s.Name))
		} else {
			fmt.Fprintf(t, "%s\t%s\tleader\tcurrent\t0\tnow\n", s.Name, s.Leader)
		}
		for _, p := range s.Peers {
			state := peerState(p)
			fmt.Fprintf(t, "%s\t%s\tcopy\t%s\t%d\t%s ago\n", s.Name, p.Name, state, p.Lag, p.Active.Round(10*time.Millisecond))
			if state != "current" {
				warnings = append(warnings, fmt.Sprintf("stream %s: the copy on %s is %s", s.Name, p.Name, state))
			}
		}
	}
	if rows == 0 {
		return nil
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, line := range warnings {
		fmt.Fprintln(w, red(line, colour))
	}
	_, err := fmt.Fprintln(w)
	return err
}

func peerState(p bus.Peer) string {
	switch {
	case p.Offline:
		return "offline"
	case !p.Current:
		return "behind"
	}
	return "current"
}

func fill(s bus.StreamDetail) string {
	if s.MaxBytes <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*float64(s.Bytes)/float64(s.MaxBytes))
}

func kept(d time.Duration) string {
	if d == 0 {
		return "no limit"
	}
	return app.Duration(d).String()
}
