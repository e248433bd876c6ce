package ctl

import (
	"fmt"

	"github.com/seed-452fa805/siptrace/internal/bench"
)

// BenchCmd is ctl bench.
type BenchCmd struct {
	Pipeline BenchPipelineCmd `cmd:"" help:"Measure the whole way: HEP over UDP, tap, NATS, db-writer, database."`
	Writer   BenchWriterCmd   `cmd:"" help:"Measure how fast db-writer empties a full stream."`
	Send     BenchSendCmd     `cmd:"" help:"Send HEP at a steady rate to any tap or collector."`
	Sink     BenchSinkCmd     `cmd:"" help:"Count the HEP that arrives."`
	Report   BenchReportCmd   `cmd:"" help:"Print what benchmarks have written as one table."`
}

// JSONFlag chooses between a text for people and one line for programs.
type JSONFlag struct {
	JSON bool `name:"json" help:"Print one JSON object." env:"-"`
}

// print shows a result as the flag wants it.
func (f JSONFlag) print(env *Env, r fmt.Stringer) error {
	if f.JSON {
		return bench.WriteJSON(env.Stdout, r)
	}
	_, err := fmt.Fprint(env.Stdout, r)
	return err
}

// BenchPipelineCmd is ctl bench pipeline.
type BenchPipelineCmd struct {
	bench.PipelineOptions
	JSONFlag
}

// Help is the end of ctl bench pipeline --help.
func (*BenchPipelineCmd) Help() string {
	return `It starts tap, db-writer, nats-server and PostgreSQL of its own on the loopback interface, and removes what they wrote.
Examples:
  ctl bench pipeline
  ctl bench pipeline --rate 20000 --duration 1m --store sqlite --json`
}

// Run measures the pipeline.
func (c *BenchPipelineCmd) Run(env *Env) error {
	r, err := bench.Pipeline(env, c.PipelineOptions, env.Stderr)
	if err != nil {
		return err
	}
	return c.print(env, r)
}

// BenchWriterCmd is ctl bench writer.
type BenchWriterCmd struct {
	bench.WriterOptions
	JSONFlag
}

// Run measures db-writer.
func (c *BenchWriterCmd) Run(env *Env) error {
	r, err := bench.Writer(env, c.WriterOptions, env.Stderr)
	if err != nil {
		return err
	}
	return c.print(env, r)
}

// BenchSendCmd is ctl bench send.
type BenchSendCmd struct {
	bench.SendOptions
	JSONFlag
}

// Help is the end of ctl bench send --help.
func (*BenchSendCmd) Help() string {
	return `Example:
  ctl bench send --to hep+udp://127.0.0.1:9060 --rate 5000 --duration 1m`
}

// Run sends.
func (c *BenchSendCmd) Run(env *Env) error {
	r, err := bench.Send(env, c.SendOptions)
	if err != nil {
		return err
	}
	return c.print(env, r)
}

// BenchSinkCmd is ctl bench sink.
type BenchSinkCmd struct {
	bench.SinkOptions
	JSONFlag
}

// Run counts.
func (c *BenchSinkCmd) Run(env *Env) error {
	r, err := bench.Sink(env, c.SinkOptions, env.Stderr)
	if err != nil {
		return err
	}
	return c.print(env, r)
}

// BenchReportCmd is ctl bench report.
type BenchReportCmd struct {
	Files []string `arg:"" name:"file" help:"What ctl bench … --json or go test -bench wrote; \"-\" is standard input."`
}

// Run prints the table.
func (c *BenchReportCmd) Run(env *Env) error {
	var report bench.Report
	for _, name := range c.Files {
		b, err := readInput(env.Stdin, name)
		if err != nil {
			return err
		}
		if err := report.Read(b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err := fmt.Fprint(env.Stdout, &report)
	return err
}
