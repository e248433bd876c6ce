package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is what several benchmarks have measured, in one table. The zero
// Report is empty.
type Report struct {
	micro     []goBench
	writers   []*WriterResult
	pipelines []*PipelineResult
}

// Read takes in what go test -bench or a benchmark's --json has written, or
// several of them in one.
func (r *Report) Read(b []byte) error {
	found := 0
	for line := range bytes.Lines(b) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue
		}
		if err := r.result(line); err != nil {
			return err
		}
		found++
	}
	micro := parseGoBench(string(b))
	r.micro = append(r.micro, micro...)
	if found+len(micro) == 0 {
		return fmt.Errorf("no result of a benchmark")
	}
	return nil
}

// result takes in one result of ours.
func (r *Report) result(line []byte) error {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return err
	}
	switch head.Kind {
	case "pipeline":
		var v PipelineResult
		r.pipelines = append(r.pipelines, &v)
		return json.Unmarshal(line, &v)
	case "writer":
		var v WriterResult
		r.writers = append(r.writers, &v)
		return json.Unmarshal(line, &v)
	case "send", "sink":
		return nil // figures of helpers: nothing was promised
	}
	return fmt.Errorf("result of unknown kind %q", head.Kind)
}

// String is the table. Of several runs it tells the one in the middle and, in
// brackets, the least and the most.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", r.machine())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tmust reach\tmeasured\t\tpeers")
	for _, g := range goals() {
		for _, cells := range g.lines(r) {
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
	}
	_ = t.Flush()
	fmt.Fprintf(&b, "\n%s", r.noise())
	return b.String()
}

// machine is where the figures were taken.
func (r *Report) machine() string {
	for _, p := range r.pipelines {
		return p.Machine.String()
	}
	for _, w := range r.writers {
		return w.Machine.String()
	}
	return thisMachine().String()
}

// noise is what else used the machine in the runs of whole programs.
func (r *Report) noise() string {
	var others, stolen []float64
	for _, p := range r.pipelines {
		others, stolen = append(others, p.Others), append(stolen, p.Stolen)
	}
	for _, w := range r.writers {
		others, stolen = append(others, w.Others), append(stolen, w.Stolen)
	}
	if len(others) == 0 {
		return ""
	}
	text := fmt.Sprintf("%d runs of whole programs; others, with the kernel's own work, used %.0f to %.0f %% of the CPU time, the host took up to %.0f %%\n",
		len(others), slices.Min(others), slices.Max(others), slices.Max(stolen))
	if slices.Max(others)+slices.Max(stolen) > quiet {
		text += "the machine was not quiet: rates would be higher on one that is\n"
	}
	return text
}

// quiet is how much of the machine, in per cent, may be used by others before
// the rates are worth little. A good part of it is the kernel's writing to the disk.
const quiet = 20
