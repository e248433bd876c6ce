package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	readyTimeout = 30 * time.Second
	readyPoll    = 20 * time.Millisecond
	stopTimeout  = 40 * time.Second // longer than a service gives itself
)

// A process is one of the programs that are measured.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string        // file
	ended chan struct{} // closed when it has ended
}

// launch starts a program on so many cores; what it writes goes to a file in
// dir. It gets no settings of siptrace but those given in env.
func launch(program, dir string, cores int, env []string, args ...string) (*process, error) {
	name := filepath.Base(program)
	p := &process{name: name, cmd: exec.Command(program, args...), log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.Env = append(plainEnv(os.Environ()), env...)
	apart(p.cmd)
	if err := onCores(cores, p.cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended is in its log
	}()
	return p, nil
}

// plainEnv leaves out what would set siptrace's programs otherwise than by default.
func plainEnv(env []string) []string {
	var plain []string
	for _, e := range env {
		if !strings.HasPrefix(e, "SIPTRACE_") {
			plain = append(plain, e)
		}
	}
	return plain
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the program to end and waits until it has.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("%s did not end within %v and was killed", p.name, stopTimeout)
}

// await calls ready until it returns nil, for as long as the program runs and
// patience lasts.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s has ended:\n%s", p.name, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, p.lastWords())
		case <-tick.C:
		}
	}
}

// alive is nil while the program runs.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended:\n%s", p.name, p.lastWords())
	default:
		return nil
	}
}

// lastWords are the last lines that the program has written.
func (p *process) lastWords() string {
	const most = 8
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-most):], []byte("\n")))
}

// get reads a page of one of our programs.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", bytes.TrimSpace(b))
	}
	return b, err
}
