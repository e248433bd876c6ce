package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A goal is a figure that was promised.
type goal struct {
	what  string
	want  float64
	most  bool   // want is the most, not the least
	unit  string // written behind figures: " ns"
	worst bool   // of several runs the worst counts, not the middle one
	take  func(r *Report) []float64
	peers []peer
}

// A peer is another program with its known figure, which is not measured here.
type peer struct {
	name   string
	figure float64
}

// goals are what siptrace promises.
func goals() []goal {
	return []goal{
		{what: "HEP3 encode, 800-byte INVITE", want: 60, most: true, unit: " ns",
			take: micro("pkg/hep", "Append", "ns/op"), peers: []peer{{"heplify 2", 308}}},
		allocations("pkg/hep", "Append"),
		{what: "HEP3 decode, 800-byte INVITE", want: 90, most: true, unit: " ns",
			take: micro("pkg/hep", "Decode", "ns/op"), peers: []peer{{"hep-go", 402}}},
		allocations("pkg/hep", "Decode"),
		{what: "sipmsg, 1.1 kB INVITE, all fields", want: 900, most: true, unit: " ns",
			take: micro("pkg/trace/sipmsg", "Scan/INVITE", "ns/op"), peers: []peer{{"sipgo", 5700}}},
		allocations("pkg/trace/sipmsg", "Scan/INVITE"),
		{what: "frame of 32, encode + decode, per event", want: 250, most: true, unit: " ns", take: micro("pkg/trace", "Frame", "ns/event")},
		allocations("pkg/trace", "Frame"),
		{what: "db-writer into PostgreSQL, first 20 s", want: 90_000, unit: " rows/s", take: (*Report).postgresEarly},
		{what: "  over 5,000,000 rows", want: 65_000, unit: " rows/s", take: (*Report).postgresLong},
		{what: "db-writer into SQLite", want: 35_000, unit: " rows/s", take: (*Report).sqlite},
		{what: "  lost, or stored twice", most: true, worst: true, unit: " events", take: (*Report).writersFaults},
		{what: "whole pipeline on 2 cores, 20 s", want: 60_000, unit: " events/s",
			take:  pipelines(func(p *PipelineResult) float64 { return p.PerSecond }),
			peers: []peer{{"heplify-server at best", 22_500}, {"heplify-server tuned", 17_500}, {"heplify-server as shipped", 4_000}}},
		{what: "  lost, or stored twice", most: true, worst: true, unit: " events",
			take: pipelines(func(p *PipelineResult) float64 { return faults(p.Lost, p.Rows, p.Stored) })},
		{what: "  CPU of all programs, per event", want: 30, most: true, unit: " µs",
			take:  pipelines(func(p *PipelineResult) float64 { return p.Together }),
			peers: []peer{{"heplify-server at best", 76}, {"heplify-server as shipped", 85}}},
		{what: "  resident memory of the tap", want: 100, most: true, worst: true, unit: " MB",
			take: pipelines(func(p *PipelineResult) float64 { return float64(p.Memory) / 1e6 })},
	}
}

// allocations is the promise that a benchmark allocates nothing.
func allocations(pkg, name string) goal {
	return goal{what: "  allocations", most: true, worst: true, take: micro(pkg, name, "allocs/op")}
}

// micro takes the figures of a benchmark of go test.
func micro(pkg, name, unit string) func(*Report) []float64 {
	return func(r *Report) (all []float64) {
		for _, b := range r.micro {
			if v, ok := b.values[unit]; ok && b.pkg == pkg && b.name == name {
				all = append(all, v)
			}
		}
		return all
	}
}

// pipelines takes a figure of the runs that are as promised: at full rate, long
// enough, on two cores, into PostgreSQL.
func pipelines(figure func(*PipelineResult) float64) func(*Report) []float64 {
	return func(r *Report) (all []float64) {
		for _, p := range r.pipelines {
			if p.Rate >= 60_000 && p.Took >= nearly(20*time.Second) && p.Cores <= 2 && p.Machine.has("PostgreSQL") {
				all = append(all, figure(p))
			}
		}
		return all
	}
}

// nearly allows for the last event of a time being sent before its end.
func nearly(d time.Duration) time.Duration { return d - d/100 }

func (m Machine) has(database string) bool { return strings.HasPrefix(m.Database, database) }

func (r *Report) postgresEarly() (all []float64) {
	for _, w := range r.writers {
		if w.Machine.has("PostgreSQL") && w.EarlyTook >= 20*time.Second && w.Cores <= 2 {
			all = append(all, w.EarlyPerSec)
		}
	}
	return all
}

func (r *Report) postgresLong() (all []float64) {
	for _, w := range r.writers {
		if w.Machine.has("PostgreSQL") && w.Waiting >= 5_000_000 && w.Cores <= 2 {
			all = append(all, w.PerSecond)
		}
	}
	return all
}

func (r *Report) sqlite() (all []float64) {
	for _, w := range r.writers {
		if w.Machine.has("SQLite") && w.Took >= 20*time.Second && w.Cores <= 2 {
			all = append(all, w.PerSecond)
		}
	}
	return all
}

func (r *Report) writersFaults() (all []float64) {
	for _, w := range r.writers {
		all = append(all, faults(w.Lost, w.Rows, w.Stored))
	}
	return all
}

// faults is how many events are not stored, or not once.
func faults(lost, rows, stored uint64) float64 { return float64(lost + rows - min(rows, stored)) }

// value is the figure that several runs come down to: the one in the middle,
// of two the worse.
func (g *goal) value(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	if !g.most {
		slices.Reverse(s) // the worst is the last
	}
	if g.worst {
		return s[len(s)-1]
	}
	return s[len(s)/2]
}

// lines are a goal's lines in the table: one, and one more for every peer but
// the first.
func (g *goal) lines(r *Report) [][]string {
	cells := []string{g.what, g.sign() + figure(g.want) + g.unit, "not measured", "", ""}
	all := g.take(r)
	if len(all) == 0 {
		return [][]string{cells}
	}
	v := g.value(all)
	cells[2], cells[3] = figure(v)+g.unit, "met"
	if least, most := slices.Min(all), slices.Max(all); least != most {
		cells[2] += fmt.Sprintf(" (%s to %s)", figure(least), figure(most))
	}
	if g.most && v > g.want || !g.most && v < g.want {
		cells[3] = "FAILED"
	}
	lines := [][]string{cells}
	for i, p := range g.peers {
		if i > 0 {
			lines = append(lines, make([]string, len(cells)))
		}
		lines[i][4] = g.compare(v, p)
	}
	return lines
}

func (g *goal) sign() string {
	switch {
	case g.want == 0:
		return ""
	case g.most:
		return "≤ "
	}
	return "≥ "
}

// compare puts a figure beside a peer's.
func (g *goal) compare(v float64, p peer) string {
	times := v / p.figure
	if g.most {
		times = p.figure / v
	}
	return fmt.Sprintf("%s: %s%s (%.1f ×)", p.name, figure(p.figure), g.unit, times)
}

// figure writes a number with the digits that mean something.
func figure(v float64) string {
	switch {
	case v >= 1000:
		return perSecond(v)
	case v < 100 && v != float64(int(v)):
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
