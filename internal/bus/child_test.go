package bus_test

import (
	"bufio"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"go.uber.org/goleak"
)

// A test that kills a server runs it in a process of its own: this binary,
// told by the environment to be one.
const (
	childDir    = "SIPTRACE_TEST_NATSD_DIR"
	childListen = "SIPTRACE_TEST_NATSD_LISTEN"
	childConfig = "SIPTRACE_TEST_NATSD_CONFIG" // a configuration file instead of both
)

func TestMain(m *testing.M) {
	if file := os.Getenv(childConfig); file != "" {
		serveConfigAsChild(file)
		return
	}
	if dir := os.Getenv(childDir); dir != "" {
		serveAsChild(dir, os.Getenv(childListen))
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(os.Exit))
}

func serveAsChild(dir, listen string) {
	s, err := natsd.Start(natsd.Options{Dir: dir, Listen: listen, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		os.Stdout.WriteString("error " + err.Error() + "\n")
		os.Exit(1)
	}
	defer s.Shutdown()
	os.Stdout.WriteString("ready\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent is gone
}

// serveConfigAsChild runs the server that a configuration file describes.
func serveConfigAsChild(file string) {
	ns, err := configuredServer(file)
	if err != nil {
		os.Stdout.WriteString("error " + err.Error() + "\n")
		os.Exit(1)
	}
	defer func() { ns.Shutdown(); ns.WaitForShutdown() }()
	os.Stdout.WriteString("ready\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent is gone
}

type childServer struct{ kill func() }

// startChildServer returns when the server accepts clients.
func startChildServer(t *testing.T, dir, listen string) childServer {
	t.Helper()
	return startChild(t, childDir+"="+dir, childListen+"="+listen)
}

// startChild runs this binary with an environment that tells it which server
// to be.
func startChild(t *testing.T, env ...string) childServer {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill := func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = in.Close()
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("child server says %q, error %v", line, err)
	}
	return childServer{kill}
}
