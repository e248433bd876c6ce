package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what should happen at once. Only what
// is broken makes it wait so long.
const patience = 90 * time.Second

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A process is a program that runs beside the test.
type process struct {
	name     string
	cmd      *exec.Cmd
	out, err transcript // what it wrote
	ended    chan struct{}
}

// transcript keeps what a process writes.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *transcript) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// lines are the whole lines written so far.
func (w *transcript) lines() []string {
	text := w.String()
	return strings.Split(text[:strings.LastIndexByte(text, '\n')+1], "\n")
}

// launch starts a process that is ended with the test.
func launch(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(path), ended: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = env
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.SysProcAttr = bound()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended is asked with code
	}()
	t.Cleanup(func() { p.bury(t) })
	return p
}

// bury ends what is left of the process, and shows its last words if the test
// has failed.
func (p *process) bury(t *testing.T) {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // an error means that there is nothing left
	<-p.ended
	if strings.Contains(p.err.String(), "WARNING: DATA RACE") {
		t.Errorf("%s has a data race:\n%s", p.name, p.err.String())
		return
	}
	if t.Failed() {
		t.Logf("%s %s:\n%s", p.name, strings.Join(p.cmd.Args[1:], " "), last(p.out.String()+p.err.String()))
	}
}

// last is the end of a long text.
func last(s string) string {
	const enough = 6000
	if len(s) > enough {
		return "…" + s[len(s)-enough:]
	}
	return s
}

// signal sends a signal to the process.
func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v", p.name, patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// kill ends the process without asking it.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	p.wait(t)
}

// says waits until the process has written a text to its standard output.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, p.name+" says "+text, func() bool {
		if !p.alive() {
			t.Fatalf("%s has ended and did not say %q", p.name, text)
		}
		return strings.Contains(p.out.String(), text)
	})
}

// stop asks the process to end; it has to do so with exit code 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t); code != 0 {
		t.Errorf("%s ended with code %d after SIGTERM, want 0\n%s", p.name, code, last(p.err.String()))
	}
}

// alive reports whether the process still runs.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// program starts one of siptrace's programs.
func program(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return launch(t, environment(t), filepath.Join(programsDir, name), args...)
}

// environment is a clean one: nothing of the developer's gets in, and nothing
// of the test's stays behind.
func environment(t *testing.T) []string {
	home := t.TempDir()
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "XDG_STATE_HOME=" + home, "TZ=UTC", "GORACE=atexit_sleep_ms=0"}
}

// A record is one line of a program's log.
type record map[string]any

// logged waits for a record with a message and returns the first.
func (p *process) logged(t *testing.T, message string) record {
	t.Helper()
	var found record
	eventually(t, p.name+" logs "+message, func() bool {
		for _, line := range p.err.lines() {
			var r record
			if json.Unmarshal([]byte(line), &r) == nil && r["msg"] == message {
				found = r
				return true
			}
		}
		if !p.alive() {
			t.Fatalf("%s has ended and did not log %q", p.name, message)
		}
		return false
	})
	return found
}

// A result is what a command came to.
type result struct {
	code        int
	out, errors string
}

// run runs one of siptrace's programs to its end.
func run(t *testing.T, stdin, name string, args ...string) result {
	t.Helper()
	return runWith(t, environment(t), stdin, name, args...)
}

func runWith(t *testing.T, env []string, stdin, name string, args ...string) result {
	t.Helper()
	limit := faultScale().patience
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programsDir, name), args...)
	cmd.Env = env
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = bound()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %s: not done within %v\n%s", name, strings.Join(args, " "), limit, last(errs.String()))
	}
	if strings.Contains(errs.String(), "WARNING: DATA RACE") {
		t.Errorf("%s has a data race:\n%s", name, errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must is run for a command that has to do what it is told.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := run(t, "", name, args...)
	if r.code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", name, strings.Join(args, " "), r.code, r.errors)
	}
	return r.out
}
