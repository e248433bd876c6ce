//go:build linux

package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, script string, env ...string) *process {
	t.Helper()
	p, err := launch("/bin/sh", t.TempDir(), 1, env, "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// written returns as soon as the program has written what is wanted.
func written(t *testing.T, p *process, want string) {
	t.Helper()
	err := p.await(t.Context(), func(context.Context) error {
		if got := p.lastWords(); !strings.Contains(got, want) {
			return errors.New("wrote " + got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLaunch_givesNoSettingsButItsOwn(t *testing.T) {
	t.Setenv("SIPTRACE_STORE", "postgres://somebody-elses")
	t.Setenv("SIPTRACE_TABLE", "precious")
	p := start(t, `echo "store=$SIPTRACE_STORE table=$SIPTRACE_TABLE."; sleep 60`, "SIPTRACE_STORE=sqlite:x.db")
	written(t, p, "store=sqlite:x.db table=.")
}

func TestProcess_stop_waitsForTheEnd(t *testing.T) {
	p := start(t, `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done`)
	written(t, p, "ready")
	if err := p.alive(); err != nil {
		t.Errorf("alive = %v", err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if got := p.lastWords(); !strings.HasSuffix(got, "bye") {
		t.Errorf("it said %q, want it to have ended in its own way", got)
	}
	if err := syscall.Kill(p.pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process is still there: %v", err)
	}
	if p.alive() == nil {
		t.Error("an ended program is alive")
	}
}

func TestProcess_await_tellsWhyAProgramHasEnded(t *testing.T) {
	p := start(t, `echo "cannot: reason"; exit 1`)
	err := p.await(t.Context(), func(context.Context) error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "cannot: reason") {
		t.Errorf("error = %v, want the program's own words", err)
	}
}

func TestProcess_await_endsWithItsContext(t *testing.T) {
	p := start(t, "sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := p.await(ctx, func(context.Context) error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("error = %v, want what was waited for", err)
	}
}

func TestRig_close_undoesEverything(t *testing.T) {
	dir := t.TempDir()
	r, err := newRig(Place{Dir: dir, Cores: 1}, 0, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	r.ends = append(r.ends,
		func() error { order = append(order, "first"); return nil },
		func() error { order = append(order, "second"); return errors.New("no") })
	if err := r.close(); err == nil {
		t.Error("an error was swallowed")
	}
	if want := []string{"second", "first"}; !slices.Equal(order, want) {
		t.Errorf("order = %v, want %v", order, want)
	}
	if _, _, err := room(r.dir); err == nil {
		t.Error("the folder is still there")
	}
}

func TestNewRig_errors(t *testing.T) {
	dir := t.TempDir()
	for what, rig := range map[string]func() (*rig, error){
		"no core":       func() (*rig, error) { return newRig(Place{Dir: dir}, 0, t.Output()) },
		"no folder":     func() (*rig, error) { return newRig(Place{Dir: dir + "/none", Cores: 1}, 0, t.Output()) },
		"too many rows": func() (*rig, error) { return newRig(Place{Dir: dir, Cores: 1}, 1<<60, t.Output()) },
	} {
		if _, err := rig(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestRig_start_saysHowToBuild(t *testing.T) {
	r, err := newRig(Place{Dir: t.TempDir(), Bin: t.TempDir(), Cores: 1}, 0, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for name, want := range map[string]string{"tap": "make build", "nats-server": "go build -o bin/nats-server"} {
		if _, err := r.start(name, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("start %s: error = %v, want one that says %q", name, err, want)
		}
	}
}
