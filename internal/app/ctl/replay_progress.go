package ctl

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-452fa805/siptrace/internal/telemetry"
)

// How often progress is shown: on a terminal in one line that changes, else in
// a new one.
const (
	terminalEvery = 250 * time.Millisecond
	lineEvery     = 5 * time.Second
)

// progress shows how far a command is, on standard error.
type progress struct {
	w        io.Writer
	terminal bool
	total    float64 // of done, to reckon percent and the time left; 0 is unknown

	stopped chan struct{}
	ended   chan struct{}

	mu     sync.Mutex
	began  time.Time
	events int
	done   float64
	where  string
	shown  bool // a line without end is on the terminal
}

// startProgress shows progress until stop.
func startProgress(w io.Writer, total float64) *progress {
	p := &progress{
		w: w, terminal: telemetry.IsTerminal(w), total: total,
		stopped: make(chan struct{}), ended: make(chan struct{}), began: time.Now(),
	}
	go p.run()
	return p
}

// run shows a line now and then.
func (p *progress) run() {
	defer close(p.ended)
	every := lineEvery
	if p.terminal {
		every = terminalEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.stopped:
			return
		case now := <-tick.C:
			p.mu.Lock()
			p.show(now)
			p.mu.Unlock()
		}
	}
}

// show writes the line. The lock is held.
func (p *progress) show(now time.Time) {
	line := p.line(now)
	if !p.terminal {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprint(p.w, "\r\x1b[K"+line)
	p.shown = true
}

// line is how far it is: "62 %  1,234,567 events  45,210/s  frame 812 of 1,300  35s left".
func (p *progress) line(now time.Time) string {
	elapsed := now.Sub(p.began)
	s := fmt.Sprintf("%s  %s/s", counted(p.events, "event"), count(int(float64(p.events)/max(elapsed.Seconds(), 0.001))))
	if p.where != "" {
		s += "  " + p.where
	}
	if p.total <= 0 {
		return s
	}
	part := min(p.done/p.total, 1)
	s = fmt.Sprintf("%3.0f %%  %s", 100*part, s)
	if part > 0 && part < 1 {
		left := time.Duration(float64(elapsed) * (1 - part) / part)
		s += "  " + left.Round(time.Second).String() + " left"
	}
	return s
}

// at says how far it is.
func (p *progress) at(done float64, where string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.where = done, where
}

// add counts events.
func (p *progress) add(events int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events += events
}

// say writes a line of its own.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// Write lets a logger write lines of its own.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.w.Write(b)
}

// log is a logger whose lines do not get mixed up with the progress.
func (p *progress) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(p, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// clear takes the line off the terminal. The lock is held.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// stop ends it and returns how long it took.
func (p *progress) stop() time.Duration {
	close(p.stopped)
	<-p.ended
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return time.Since(p.began)
}
