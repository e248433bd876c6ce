package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMain builds the programs, with the race detector, before any test runs.
// A test that kills a NATS server, or a program that is traced from inside, has
// this binary run it, as a process of its own.
func TestMain(m *testing.M) {
	if to := os.Getenv(insideTo); to != "" {
		os.Exit(serveInside(os.Getenv(insideNATS), to, os.Getenv(insideRate)))
	}
	if dir := os.Getenv(natsDir); dir != "" {
		os.Exit(serveNATS(dir, os.Getenv(natsListen)))
	}
	dir, err := os.MkdirTemp("", "siptrace-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := 1
	if err := build(dir); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	stopPostgres()
	os.RemoveAll(dir)
	os.Exit(code)
}

// programsDir is where TestMain has put the programs.
var programsDir string

func build(dir string) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if !fullFaults() { // which measures what operators will see
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "../../../cmd/...")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	programsDir = dir
	return nil
}
