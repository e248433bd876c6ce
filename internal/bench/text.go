package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// WriteJSON writes a result on one line, as [Report] reads it.
func WriteJSON(w io.Writer, result any) error { return json.NewEncoder(w).Encode(result) }

// count writes a number for people: 1,300,000.
func count(n uint64) string { return humanize.Comma(int64(n)) }

// rate writes how many come in a second.
func rate(n uint64, d time.Duration) string {
	if d <= 0 {
		return "0"
	}
	return perSecond(float64(n) / d.Seconds())
}

func perSecond(v float64) string { return humanize.Comma(int64(v)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// String names the machine on one line.
func (m Machine) String() string {
	s := fmt.Sprintf("%s, %d cores, %s, %s", m.CPU, m.Cores, m.Kernel, strings.Replace(m.Go, "go", "Go ", 1))
	if m.NATS != "" {
		s += ", nats-server " + m.NATS
	}
	if m.Database != "" {
		s += ", " + m.Database
	}
	return s
}

// write lists what each program has used.
func (c *Costs) write(w io.Writer, own string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\tµs of CPU per event\ts in all\t\n")
	var all float64
	for _, p := range c.Programs {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t\n", p.Name, p.PerEvent, p.CPU)
		all += p.CPU
	}
	fmt.Fprintf(t, "together\t%.1f\t%.1f\t\n", c.Together, all)
	fmt.Fprintf(t, "%s, not counted\t%.1f\t%.1f\t\n", own, c.Own.PerEvent, c.Own.CPU)
	_ = t.Flush() // w is memory
	fmt.Fprintf(w, "\nothers, with the kernel's own work, used %.1f %% of this machine's CPU time, its host took %.1f %%\n", c.Others, c.Stolen)
}

// String tells people.
func (r *PipelineResult) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nHEP over UDP → tap → nats-server → db-writer → %s on %d cores", r.Machine, r.Machine.Database, r.Cores)
	if r.Sync {
		fmt.Fprint(&b, ", NATS with sync_interval: always")
	}
	fmt.Fprintln(&b)
	fmt.Fprintln(&b)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "sent\t%s\tevents in %s, %s a second, at most %v late\n", count(r.Sent), seconds(r.Took), rate(r.Sent, r.Took), r.Latest.Round(100*time.Microsecond))
	fmt.Fprintf(t, "stored\t%s\tevents in %s, %s a second\n", count(r.Stored), seconds(r.Whole), perSecond(r.PerSecond))
	fmt.Fprintf(t, "twice\t%s\t\n", count(r.Rows-min(r.Rows, r.Stored)))
	fmt.Fprintf(t, "lost\t%s\t\n", count(r.Lost))
	for _, l := range r.LostAt {
		fmt.Fprintf(t, "\t%s\t%s\n", count(l.Events), l.Place)
	}
	fmt.Fprintf(t, "tap memory\t%s\tat most\n", megabytes(r.Memory))
	fmt.Fprintf(t, "stream\t%.0f bytes\tan event, %.1f events a frame\n", r.Wire, r.Frame)
	_ = t.Flush()
	fmt.Fprintln(&b)
	r.write(&b, "generator")
	return b.String()
}

// String tells people.
func (r *WriterResult) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nstream → db-writer → %s on %d cores\n\n", r.Machine, r.Machine.Database, r.Cores)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "first\t%s\trows in %s, %s a second\n", count(r.EarlyRows), seconds(r.EarlyTook), perSecond(r.EarlyPerSec))
	fmt.Fprintf(t, "all\t%s\trows in %s, %s a second\n", count(r.Rows), seconds(r.Took), perSecond(r.PerSecond))
	fmt.Fprintf(t, "twice\t%s\t\n", count(r.Rows-min(r.Rows, r.Stored)))
	fmt.Fprintf(t, "lost\t%s\t\n", count(r.Lost))
	_ = t.Flush()
	fmt.Fprintln(&b)
	r.write(&b, "this program")
	return b.String()
}
