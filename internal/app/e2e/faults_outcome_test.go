package e2e

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// An outcome is what a fault came to, in events.
type outcome struct {
	what           string // what happened to the events
	sent           int
	stream, stored int // different events
	before         int // sent and not in the stream
	after          int // in the stream and not stored
	double         int // rows, or deliveries, too many
	strange        int // stored and never sent
}

// census compares the ids at the sender, in the stream and in the database.
func (tr *trial) census() outcome {
	tr.Helper()
	return tally(tr.ids(), streamed(tr.T, tr.nats), tr.db.ids(tr.T))
}

// tally compares what was sent, what is in the stream and what has arrived.
func tally(sent map[trace.ID]bool, stream, arrived map[trace.ID]int) outcome {
	o := outcome{sent: len(sent), stream: len(stream), stored: len(arrived)}
	for id := range sent {
		if stream[id] == 0 {
			o.before++
		}
	}
	for id := range stream {
		if arrived[id] == 0 {
			o.after++
		}
	}
	for id, n := range arrived {
		o.double += n - 1
		if !sent[id] {
			o.strange++
		}
	}
	return o
}

// exact fails the test unless what is in the stream is stored, each event once.
func (tr *trial) exact(o outcome) {
	tr.Helper()
	if o.after > 0 || o.double > 0 || o.strange > 0 {
		tr.Errorf("%s: of %d events in the stream %d are missing, %d stored more than once, %d stored that were not sent",
			tr.fault, o.stream, o.after, o.double, o.strange)
	}
}

// lossless fails the test unless all that was sent is stored, each event once.
func (tr *trial) lossless(o outcome) {
	tr.Helper()
	tr.exact(o)
	if o.before > 0 {
		tr.Errorf("%s: %d of %d events did not get into the stream", tr.fault, o.before, o.sent)
	}
}

// report adds the outcome to the table.
func (tr *trial) report(o outcome, format string, args ...any) {
	tr.Helper()
	o.what = fmt.Sprintf(format, args...)
	caught := "-"
	if tr.caught > 0 {
		caught = fmt.Sprintf("%.1f", tr.caught.Seconds())
	}
	if tr.caught > tr.back+5*time.Second { // a few frames had to wait for AckWait
		caught = fmt.Sprintf("%.1f, the last %.1f", tr.back.Seconds(), tr.caught.Seconds())
	}
	lost := fmt.Sprint(o.before + o.after)
	if o.before > 0 {
		lost += fmt.Sprintf(" (%d before the stream)", o.before)
	}
	line := strings.Join([]string{tr.fault, o.what, fmt.Sprint(o.sent), fmt.Sprint(o.stored), lost, fmt.Sprint(o.double), caught}, "\t")
	tr.Log(strings.ReplaceAll(line, "\t", " | "))
	path := os.Getenv(tableEnv)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		tr.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, line); err != nil {
		tr.Fatal(err)
	}
}
