package spool_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/spool"
	"go.uber.org/goleak"
)

// A test that kills a writer, or lets its disk be full, runs it in a process of
// its own: this binary, told by the environment to be one.
const (
	childDir   = "SIPTRACE_TEST_SPOOL_DIR"
	childFirst = "SIPTRACE_TEST_SPOOL_FIRST"
	childLimit = "SIPTRACE_TEST_SPOOL_FILE_LIMIT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		writeAsChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// writeAsChild appends records for ever and says how many are on disk. With a
// limit on the size of files it says what the disk says.
func writeAsChild(dir string) {
	if limit, err := strconv.ParseUint(os.Getenv(childLimit), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		_ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: syscall.RLIM_INFINITY & (1<<63 - 1)})
	}
	s, err := spool.Open(dir, spool.Options{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	next, _ := strconv.Atoi(os.Getenv(childFirst))
	b := bed{Spool: s}
	for {
		n, err := b.add(next, 1+rand.IntN(60))
		next += n
		fmt.Println(next)
		if err != nil {
			fmt.Println("error", err)
			if os.Getenv(childLimit) == "" {
				return
			}
			_ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 40, Max: 1 << 40})
			n, err := b.add(next, 40)
			fmt.Println(next + n)
			fmt.Println("error", err, s.Close())
			return
		}
	}
}

// child runs a writer and returns how many records it has said to be on disk,
// and its last words.
func child(t *testing.T, dir string, first int, kill time.Duration, env ...string) (written int, words string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childDir+"="+dir, childFirst+"="+strconv.Itoa(first)), env...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if kill > 0 {
		killer := time.AfterFunc(kill, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
	}
	written = first
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			written = n
		} else {
			words += lines.Text() + "\n"
		}
	}
	_ = cmd.Wait()
	return written, words
}

func TestSpool_aKilledWriterLosesNothingItHasPromised(t *testing.T) {
	dir := t.TempDir()
	next, out := 0, 0
	for run := 0; run < 15 || next < 100; run++ { // where much else is done one may die before it has written anything
		written, words := child(t, dir, next, time.Duration(20+rand.IntN(300))*time.Millisecond)
		if words != "" {
			t.Fatalf("writer says %q", words)
		}
		b := open(t, dir, spool.Options{})
		if got := b.metric(t, "spool_damaged_files_total"); got != 0 {
			t.Errorf("%d damaged files", got)
		}
		got, seqs := b.take(t, 100_000)
		if out+len(got) < written {
			t.Fatalf("promised %d records, found %d", written, out+len(got))
		}
		wantRun(t, got, out, out+len(got))
		n := rand.IntN(len(seqs) + 1)
		b.done(t, seqs[:n])
		next, out = out+len(got), out+n
		b.close(t)
	}
}

func TestSpool_aFullDiskCostsNothingThatWasPromised(t *testing.T) {
	dir := t.TempDir()
	written, words := child(t, dir, 0, 0, childLimit+"=3000000")
	b := open(t, dir, spool.Options{})
	defer b.close(t)
	got, _ := b.take(t, 100_000)
	wantRun(t, got, 0, written)
	if want := "file too large\nerror <nil> <nil>\n"; len(words) < len(want) || words[len(words)-len(want):] != want {
		t.Errorf("writer says %q, want that the file is too large, and then that all is well", words)
	}
	if written < 140 {
		t.Errorf("%d records written", written)
	}
}
