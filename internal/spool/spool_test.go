package spool_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/spool"
)

// bed is an open spool with its metrics.
type bed struct {
	*spool.Spool
	reg *prometheus.Registry
}

func open(t testing.TB, dir string, o spool.Options) *bed {
	t.Helper()
	b, err := tryOpen(t, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryOpen(t testing.TB, dir string, o spool.Options) (*bed, error) {
	reg := prometheus.NewRegistry()
	s, err := spool.Open(dir, o, reg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	return &bed{s, reg}, err
}

func (b *bed) close(t testing.TB) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// metric is the sum of all series of siptrace_tap_<name>.
func (b *bed) metric(t testing.TB, name string) int {
	t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "siptrace_tap_"+name {
			sum := 0.0
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return int(sum)
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// record is the serial, and noise to a size that differs.
func record(serial int) []byte {
	b := fmt.Appendf(nil, "%08d|", serial)
	for n := 500 + serial*7919%20_000; len(b) < n; {
		b = append(b, byte(rand.Uint32()))
	}
	return b
}

func serialOf(record []byte) int {
	n := -1
	_, _ = fmt.Sscanf(string(record[:8]), "%d", &n)
	return n
}

// add appends records first to first+n-1, of serial%5+1 events each.
func (b *bed) add(first, n int) (int, error) {
	var (
		records [][]byte
		events  []int
	)
	for i := range n {
		records = append(records, record(first+i))
		events = append(events, eventsOf(first+i))
	}
	return b.Append(records, events)
}

func eventsOf(serial int) int { return serial%5 + 1 }

// eventsIn is the number of events in records from to below to.
func eventsIn(from, to int) (n int) {
	for i := from; i < to; i++ {
		n += eventsOf(i)
	}
	return n
}

func (b *bed) mustAdd(t testing.TB, first, n int) {
	t.Helper()
	if kept, err := b.add(first, n); err != nil || kept != n {
		t.Fatalf("Append kept %d of %d records, error %v", kept, n, err)
	}
}

// take hands out at most n records and returns their serials and places.
func (b *bed) take(t testing.TB, n int) (serials []int, seqs []uint64) {
	t.Helper()
	if n == 0 {
		return nil, nil
	}
	err := b.Next(func(seq uint64, r []byte, events int) bool {
		serial := serialOf(r)
		if events != eventsOf(serial) {
			t.Errorf("record %d comes with %d events, want %d", serial, events, eventsOf(serial))
		}
		serials, seqs = append(serials, serial), append(seqs, seq)
		return len(serials) < n
	})
	if err != nil {
		t.Fatal(err)
	}
	return serials, seqs
}

func (b *bed) done(t testing.TB, seqs []uint64) {
	t.Helper()
	if err := b.Done(seqs); err != nil {
		t.Fatal(err)
	}
}

// wantRun checks that got is from, from+1, … below to.
func wantRun(t testing.TB, got []int, from, to int) {
	t.Helper()
	want := make([]int, 0, max(0, to-from))
	for i := from; i < to; i++ {
		want = append(want, i)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("handed out %d records %v, want %d to %d", len(got), short(got), from, to-1)
	}
}

func short(s []int) string {
	if len(s) > 12 {
		return fmt.Sprintf("%v … %v", s[:6], s[len(s)-6:])
	}
	return fmt.Sprint(s)
}

func TestSpool_handsOutInOrderAndOnce(t *testing.T) {
	b := open(t, t.TempDir(), spool.Options{})
	defer b.close(t)
	b.mustAdd(t, 0, 300)
	first, seqs := b.take(t, 100)
	wantRun(t, first, 0, 100)
	b.mustAdd(t, 300, 100)
	rest, more := b.take(t, 1000)
	wantRun(t, rest, 100, 400)
	if again, _ := b.take(t, 1000); len(again) != 0 {
		t.Errorf("handed out %d records twice", len(again))
	}
	b.done(t, append(seqs, more...))
	if got, want := b.metric(t, "spool_drained_events_total"), eventsIn(0, 400); got != want {
		t.Errorf("%d events drained, want %d", got, want)
	}
	if frames, bytes := b.metric(t, "spool_frames"), b.metric(t, "spool_bytes"); frames != 0 || bytes != 0 {
		t.Errorf("%d frames in %d bytes left, want none", frames, bytes)
	}
}

func TestSpool_whatIsDoneIsNotHandedOutByTheNextProcess(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{})
	b.mustAdd(t, 0, 500)
	_, seqs := b.take(t, 300)
	b.done(t, append(seqs[:200:200], seqs[250:]...)) // 200 to 249 are still on their way
	b.close(t)

	b = open(t, dir, spool.Options{})
	defer b.close(t)
	got, _ := b.take(t, 1000)
	wantRun(t, got, 200, 500)
}

func TestSpool_givesTheDiskBackAsItDrains(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{MaxBytes: 32 << 20})
	defer b.close(t)
	b.mustAdd(t, 0, 2000)
	full := diskUse(t, dir)
	_, seqs := b.take(t, 1000)
	b.done(t, seqs)
	if got := diskUse(t, dir); got > full*6/10 {
		t.Errorf("half drained it takes %d bytes, of %d before", got, full)
	}
	_, seqs = b.take(t, 1000)
	b.done(t, seqs)
	if got := diskUse(t, dir); got > 600<<10 {
		t.Errorf("empty it takes %d bytes", got)
	}
}

func diskUse(t testing.TB, dir string) (n int64) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		st, err := name.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += st.Size()
	}
	return n
}

func TestSpool_fullRefusesWhatIsNew(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{MaxBytes: spool.MinBytes})
	defer b.close(t)
	kept, err := b.add(0, 2000)
	if !errors.Is(err, spool.ErrFull) || kept < 200 || kept > 500 {
		t.Fatalf("Append kept %d records of some 10 KB in 4 MiB, error %v, want %v", kept, err, spool.ErrFull)
	}
	if got := diskUse(t, dir); got > spool.MinBytes+512<<10 {
		t.Errorf("takes %d bytes of %d", got, spool.MinBytes)
	}
	if got, want := b.metric(t, "spooled_events_total"), eventsIn(0, kept); got != want {
		t.Errorf("%d events spooled, want %d", got, want)
	}
	if got := b.metric(t, "spool_dropped_events_total"); got != 0 {
		t.Errorf("%d events dropped, want 0", got)
	}
	got, seqs := b.take(t, 5000)
	wantRun(t, got, 0, kept)
	b.done(t, seqs)
	b.mustAdd(t, kept, 100)
}

func TestSpool_fullGivesUpTheOldest(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{MaxBytes: spool.MinBytes, DropOldest: true})
	for i := 0; i < 2000; i += 50 {
		b.mustAdd(t, i, 50)
		if got := diskUse(t, dir); got > spool.MinBytes+512<<10 {
			t.Fatalf("takes %d bytes of %d", got, spool.MinBytes)
		}
	}
	got, _ := b.take(t, 5000)
	first := 2000 - len(got)
	wantRun(t, got, first, 2000)
	if len(got) < 200 {
		t.Errorf("only %d records kept in 4 MiB", len(got))
	}
	if got, want := b.metric(t, "spool_dropped_events_total"), eventsIn(0, first); got != want {
		t.Errorf("%d events dropped, want %d", got, want)
	}
	b.close(t)
}

func TestSpool_givenUpWhileOnTheirWay(t *testing.T) {
	b := open(t, t.TempDir(), spool.Options{MaxBytes: spool.MinBytes, DropOldest: true})
	b.mustAdd(t, 0, 100)
	got, seqs := b.take(t, 60)
	wantRun(t, got, 0, 60)
	b.mustAdd(t, 100, 1000) // the file they came from is gone
	b.done(t, seqs[:40])    // of the others nothing is heard any more
	rest, _ := b.take(t, 2000)
	wantRun(t, rest, rest[0], 1100)
	b.close(t)
	lost := eventsIn(60, rest[0]) + eventsIn(40, 60)
	if got := b.metric(t, "spool_dropped_events_total"); got != lost {
		t.Errorf("%d events dropped, want %d", got, lost)
	}
	if got, want := b.metric(t, "spool_drained_events_total"), eventsIn(0, 40); got != want {
		t.Errorf("%d events drained, want %d", got, want)
	}
}

func TestSpool_killedAfterItWasDrainedKeepsWhatComesNext(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{})
	b.mustAdd(t, 0, 100)
	_, seqs := b.take(t, 100)
	b.done(t, seqs)
	drained := copyDir(t, dir)
	b.close(t)

	b = open(t, drained, spool.Options{})
	b.mustAdd(t, 0, 50)
	again := copyDir(t, drained)
	b.close(t)

	b = open(t, again, spool.Options{})
	defer b.close(t)
	got, _ := b.take(t, 1000)
	wantRun(t, got, 0, 50)
}

func TestOpen_refusesASecondUser(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{})
	if _, err := tryOpen(t, dir, spool.Options{}); !errors.Is(err, spool.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open error = %v, want %v and the folder", err, spool.ErrInUse)
	}
	b.close(t)
	open(t, dir, spool.Options{}).close(t)
}

func TestOpen_saysWhatIsWrongWithTheFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(t, filepath.Join(file, "spool"), spool.Options{}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("error = %v, want that it is no directory", err)
	}
	if _, err := tryOpen(t, t.TempDir(), spool.Options{MaxBytes: 1000}); err == nil {
		t.Error("1000 bytes are accepted")
	}
}

// newest is the file that was written last.
func newest(t testing.TB, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.frames"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	return slices.Max(files)
}

// copyDir copies the files as they are now, which is what a machine that loses
// power right now would find.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestOpen_aTornTailCostsItsFileAtMost(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{MaxBytes: 64 << 20})
	for i := 0; i < 1000; i += 20 {
		b.mustAdd(t, i, 20)
	}
	image := copyDir(t, dir) // the newest file is not sealed in it
	b.close(t)
	whole := 0 // records in the other files
	{
		b := open(t, copyDir(t, dir), spool.Options{})
		if err := os.Remove(newest(t, image)); err != nil {
			t.Fatal(err)
		}
		c := open(t, image, spool.Options{})
		got, _ := c.take(t, 5000)
		whole = len(got)
		c.close(t)
		b.close(t)
	}
	for range 12 {
		for _, sealed := range []bool{true, false} {
			torn := copyDir(t, dir)
			if !sealed {
				if err := os.Remove(filepath.Join(torn, "index.db")); err != nil {
					t.Fatal(err)
				}
			}
			path := newest(t, torn)
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, rand.Int64N(st.Size())); err != nil {
				t.Fatal(err)
			}
			b := open(t, torn, spool.Options{})
			got, seqs := b.take(t, 5000)
			if len(got) < whole {
				t.Fatalf("%d records left, want at least the %d of the other files", len(got), whole)
			}
			wantRun(t, got[:whole], 0, whole)
			if !slices.IsSorted(got) {
				t.Fatal("not in order")
			}
			b.done(t, seqs)
			lost := eventsIn(0, 1000)
			for _, serial := range got {
				lost -= eventsOf(serial)
			}
			if dropped := b.metric(t, "spool_dropped_events_total"); sealed && dropped != lost {
				t.Fatalf("%d events counted as lost, want %d", dropped, lost)
			}
			if files := b.metric(t, "spool_damaged_files_total"); files > 1 || files == 0 && lost > 0 && !sealed {
				t.Fatalf("lost %d events and counted %d damaged files", lost, files)
			}
			b.mustAdd(t, 1000, 10)
			again, _ := b.take(t, 100)
			wantRun(t, again, 1000, 1010)
			b.close(t)
		}
	}
}

func TestOpen_aDamagedRecordIsLeftOutAndCounted(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{})
	b.mustAdd(t, 0, 50)
	b.close(t)
	path := newest(t, dir)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(text), "00000030|")
	text[at+20] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir, spool.Options{})
	defer b.close(t)
	got, seqs := b.take(t, 100)
	if len(got) != 49 || slices.Contains(got, 30) {
		t.Errorf("handed out %v", got)
	}
	b.done(t, seqs)
	if got, want := b.metric(t, "spool_dropped_events_total"), eventsOf(30); got != want {
		t.Errorf("%d events counted as lost, want %d", got, want)
	}
}

func TestOpen_aDamagedIndexIsMadeAnew(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"short":   func(path string) error { return os.Truncate(path, 9000) },
		"garbage": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("no index ", 9000)), 0o600) },
		"missing": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, dir, spool.Options{})
			b.mustAdd(t, 0, 100)
			b.close(t)
			if err := damage(filepath.Join(dir, "index.db")); err != nil {
				t.Fatal(err)
			}
			b = open(t, dir, spool.Options{})
			defer b.close(t)
			got, seqs := b.take(t, 1000)
			wantRun(t, got, 0, 100)
			b.done(t, seqs)
		})
	}
}

// TestSpool_againstAModel does what may happen, in any order, and compares.
func TestSpool_againstAModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			b := open(t, dir, spool.Options{MaxBytes: 64 << 20})
			next, out, settled := 0, 0, 0 // written, handed out, done in order
			var seqs []uint64             // of those from settled on
			for range 120 {
				switch r.IntN(10) {
				case 0:
					b.close(t)
					b = open(t, dir, spool.Options{MaxBytes: 64 << 20})
					out, seqs = settled, nil
				case 1: // killed
					image := copyDir(t, dir)
					b.close(t)
					dir, b = image, open(t, image, spool.Options{MaxBytes: 64 << 20})
					out, seqs = settled, nil
				case 2, 3:
					n := r.IntN(60)
					b.mustAdd(t, next, n)
					next += n
				case 4, 5, 6:
					got, more := b.take(t, r.IntN(70))
					wantRun(t, got, out, out+len(got))
					out, seqs = out+len(got), append(seqs, more...)
				default:
					n := r.IntN(len(seqs) + 1)
					if r.IntN(2) == 0 {
						n = len(seqs)
					}
					b.done(t, seqs[:n])
					seqs, settled = seqs[n:], settled+n
				}
				if got, want := b.metric(t, "spool_frames"), next-settled; got != want {
					t.Fatalf("%d frames in the spool, want %d", got, want)
				}
			}
			got, _ := b.take(t, 100_000)
			wantRun(t, got, out, next)
			b.close(t)
		})
	}
}

func TestNext_aFileThatSomebodyHasRemovedCostsItsOwnRecords(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, spool.Options{MaxBytes: 8 << 20})
	for i := 0; i < 200; i += 20 {
		b.mustAdd(t, i, 20)
	}
	b.close(t)
	b = open(t, dir, spool.Options{MaxBytes: 8 << 20})
	defer b.close(t)
	names, err := filepath.Glob(filepath.Join(dir, "*.frames"))
	if err != nil || len(names) < 3 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	got, seqs := b.take(t, 200)
	if len(got) == 0 || len(got) == 200 || got[len(got)-1] != 199 {
		t.Fatalf("handed out %d records, want those of the other files", len(got))
	}
	b.done(t, seqs)
	want := 0
	for serial := range got[0] {
		want += eventsOf(serial)
	}
	if lost := b.metric(t, "spool_dropped_events_total"); lost != want {
		t.Errorf("%d events counted as lost, want %d", lost, want)
	}
	if n := b.metric(t, "spool_damaged_files_total"); n != 1 {
		t.Errorf("%d damaged files counted, want 1", n)
	}
}
