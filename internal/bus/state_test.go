package bus_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// watched collects what a watch tells.
type watched struct {
	mu   sync.Mutex
	told []bus.State
	on   []bool // what each meant when it was told
}

func (w *watched) tell(st bus.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, st)
	w.on = append(w.on, st.Effective(time.Now()))
}

func (w *watched) last() (st bus.State, on bool, times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) == 0 {
		return bus.State{}, false, 0
	}
	return w.told[len(w.told)-1], w.on[len(w.on)-1], len(w.told)
}

func watch(t *testing.T, c *bus.Conn, last bus.State) (*watched, func() error) {
	t.Helper()
	w := &watched{}
	return w, running(t, func(ctx context.Context) error {
		return bus.NewStateStore(c).Watch(ctx, last, w.tell)
	})
}

// set flips the state, whatever it was.
func set(t *testing.T, c *bus.Conn, next bus.State) bus.State {
	t.Helper()
	store := bus.NewStateStore(c)
	now, err := store.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next.Revision = now.Revision
	next.When = time.Now().UTC().Truncate(time.Second)
	got, err := store.Set(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestState_effective(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		st   bus.State
		want bool
	}{
		{"on", bus.State{On: true}, true},
		{"off", bus.State{}, false},
		{"on for a while, within", bus.State{On: true, Until: now.Add(1)}, true},
		{"on for a while, over", bus.State{On: true, Until: now}, false},
		{"off for a while, within", bus.State{Until: now.Add(1)}, false},
		{"off for a while, over", bus.State{Until: now}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.st.Effective(now); got != tt.want {
				t.Errorf("Effective = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestStateStore_isOnUntilSomebodySetsIt(t *testing.T) {
	_, c := bed(t)
	store := bus.NewStateStore(c)
	st, err := store.Get(t.Context())
	if err != nil || !st.On || st.Revision != 0 {
		t.Fatalf("Get = %+v, %v, want on at revision 0", st, err)
	}
	off := bus.State{Who: "alice", Why: "maintenance", When: time.Now().UTC().Truncate(time.Second), Until: time.Now().UTC().Add(time.Hour).Truncate(time.Second)}
	set1, err := store.Set(t.Context(), off)
	if err != nil {
		t.Fatal(err)
	}
	off.Revision = set1.Revision
	if got, err := store.Get(t.Context()); err != nil || got != off || set1 != off {
		t.Errorf("Get = %+v, %v, want %+v", got, err, off)
	}
}

func TestStateStore_conflictSaysWhoWasQuicker(t *testing.T) {
	_, c := bed(t)
	store := bus.NewStateStore(c)
	old, err := store.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	set(t, c, bus.State{Who: "alice"})
	_, err = store.Set(t.Context(), bus.State{On: true, Who: "bob", Revision: old.Revision})
	if !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), `off, by "alice"`) {
		t.Errorf("Set error = %v, want a conflict that names alice", err)
	}
}

func TestStateStore_historyIsOldestFirst(t *testing.T) {
	_, c := bed(t)
	store := bus.NewStateStore(c)
	if got, err := store.History(t.Context()); err != nil || len(got) != 0 {
		t.Fatalf("History of nothing = %v, %v", got, err)
	}
	var want []bus.State
	for _, who := range []string{"alice", "bob", "carol"} {
		want = append(want, set(t, c, bus.State{Who: who, On: who == "bob"}))
	}
	got, err := store.History(t.Context())
	if err != nil || len(got) != len(want) {
		t.Fatalf("History = %v, %v, want %d states", got, err, len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("state %d = %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestWatch_aFlipArrivesAtOnce(t *testing.T) {
	_, c := bed(t)
	w, _ := watch(t, c, bus.State{On: true})
	eventually(t, "the first state is told", func() bool { _, _, n := w.last(); return n > 0 })
	for i := range 20 {
		on := i%2 == 1
		start := time.Now()
		st := set(t, c, bus.State{On: on, Who: "alice"})
		eventually(t, "the flip is told", func() bool {
			got, isOn, _ := w.last()
			return got.Revision == st.Revision && isOn == on
		})
		if took := time.Since(start); took > heard {
			t.Errorf("flip %d took %v", i, took)
		}
	}
}

func TestWatch_tellsTheSameStateOnce(t *testing.T) {
	_, c := bed(t)
	st := set(t, c, bus.State{Who: "alice"})
	w, stop := watch(t, c, st)
	flipped := set(t, c, bus.State{On: true, Who: "bob"})
	eventually(t, "the flip is told", func() bool { got, _, _ := w.last(); return got.Revision == flipped.Revision })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(w.told) != 2 {
		t.Errorf("told %+v, want the state known before and the flip", w.told)
	}
}

func TestWatch_survivesARestartOfTheServer(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	s := startServer(t, dir, addr)
	c := connect(t, "nats://"+addr, "tap")
	ensure(t, c, bus.StreamConfig{})
	w, _ := watch(t, c, bus.State{On: true})
	before := set(t, c, bus.State{Who: "alice"})
	eventually(t, "the first flip is told", func() bool { got, _, _ := w.last(); return got.Revision == before.Revision })

	s.Shutdown()
	if got, on, _ := w.last(); on || got.Revision != before.Revision {
		t.Errorf("without the server the state is %+v, want the last one", got)
	}
	startServer(t, dir, addr)
	ctl := connect(t, "nats://"+addr, "ctl")
	ensure(t, ctl, bus.StreamConfig{})
	eventually(t, "the tap is back", func() bool { return c.Check(t.Context()) == nil })
	start := time.Now()
	after := set(t, ctl, bus.State{On: true, Who: "bob"})
	eventually(t, "the flip after the restart is told", func() bool { got, _, _ := w.last(); return got.Revision == after.Revision })
	if took := time.Since(start); took > heard {
		t.Errorf("the flip after the restart took %v", took)
	}
}

func TestWatch_learnsWhatItMissed(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	tap := connect(t, "nats://"+addr, "tap") // before the server
	w, _ := watch(t, tap, bus.State{On: true, Revision: 0})
	eventually(t, "the last known state is told at once", func() bool { _, on, n := w.last(); return n == 1 && on })

	startServer(t, dir, addr)
	ctl := connect(t, "nats://"+addr, "ctl")
	ensure(t, ctl, bus.StreamConfig{})
	st := set(t, ctl, bus.State{Who: "alice"})
	eventually(t, "the state is told", func() bool { got, on, _ := w.last(); return got.Revision == st.Revision && !on })
}

func TestWatch_noticesThatTheBucketWasMadeAnew(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	for range 5 {
		set(t, c, bus.State{Who: "alice"})
	}
	w, _ := watch(t, c, bus.State{On: true})
	eventually(t, "revision 5 is told", func() bool { got, _, _ := w.last(); return got.Revision == 5 })
	if err := js.DeleteKeyValue(t.Context(), bus.BucketName); err != nil {
		t.Fatal(err)
	}
	ensure(t, c, bus.StreamConfig{})
	st := set(t, c, bus.State{On: true, Who: "bob"})
	if st.Revision >= 5 {
		t.Fatalf("revision %d in the new bucket, want it to begin again", st.Revision)
	}
	eventually(t, "the state of the new bucket is told", func() bool {
		got, _, _ := w.last()
		return got.Who == "bob" && got.Revision == st.Revision
	})
}

func TestWatch_aDeletedStateIsOn(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	w, _ := watch(t, c, bus.State{On: true})
	set(t, c, bus.State{Who: "alice"})
	eventually(t, "off is told", func() bool { _, on, n := w.last(); return n > 0 && !on })
	kv, err := js.KeyValue(t.Context(), bus.BucketName)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "state"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "on is told", func() bool { _, on, _ := w.last(); return on })
	set(t, c, bus.State{Who: "bob"}) // after the deletion the state can be set again
	eventually(t, "off is told again", func() bool { got, on, _ := w.last(); return !on && got.Who == "bob" })
}

func TestWatch_whatIsNotUnderstoodChangesNothing(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	w, _ := watch(t, c, bus.State{On: true})
	st := set(t, c, bus.State{Who: "alice"})
	eventually(t, "the state is told", func() bool { got, _, _ := w.last(); return got.Revision == st.Revision })
	kv, err := js.KeyValue(t.Context(), bus.BucketName)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := kv.Put(t.Context(), "state", []byte("switched off, I hope"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bus.NewStateStore(c).Get(t.Context()); err == nil {
		t.Error("Get of nonsense returned no error")
	}
	st, err = bus.NewStateStore(c).Set(t.Context(), bus.State{On: true, Who: "bob", Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the next state is told", func() bool { got, _, _ := w.last(); return got.Revision == st.Revision })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, got := range w.told {
		if got.Revision == revision {
			t.Errorf("told %+v", got)
		}
	}
}

func TestWatch_tellsWhenTheTimeIsOver(t *testing.T) {
	_, c := bed(t)
	w, _ := watch(t, c, bus.State{On: true})
	eventually(t, "the first state is told", func() bool { _, _, n := w.last(); return n > 0 })
	until := time.Now().Add(3 * time.Second).UTC() // longer than it takes until off is told
	set(t, c, bus.State{Who: "alice", Until: until})
	eventually(t, "off is told", func() bool { _, on, n := w.last(); return n > 0 && !on })
	eventually(t, "on is told when the time is over", func() bool { _, on, _ := w.last(); return on })
	if early := time.Until(until); early > 0 {
		t.Errorf("told %v too early", early)
	}
}

func TestState_isKeptInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if st, err := bus.LoadState(path); err != nil || !st.On || st.Revision != 0 {
		t.Fatalf("LoadState without a file = %+v, %v, want on at revision 0", st, err)
	}
	want := bus.State{Who: "alice", Why: "a \"reason\"", When: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Revision: 17}
	for range 2 { // the second time over the first
		if err := bus.SaveState(path, want); err != nil {
			t.Fatal(err)
		}
		if got, err := bus.LoadState(path); err != nil || got != want {
			t.Errorf("LoadState = %+v, %v, want %+v", got, err, want)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("%d files are left, want 1", len(files))
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := bus.LoadState(path); err == nil || !st.On {
		t.Errorf("LoadState of a broken file = %+v, %v, want on and an error", st, err)
	}
	if err := bus.SaveState(filepath.Join(path, "no", "directory"), want); err == nil {
		t.Error("SaveState without a directory returned no error")
	}
}

func TestState_readingFollowsTheNewestBucket(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	if err := js.DeleteStream(t.Context(), "KV_"+bus.BucketName); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.NewStateStore(c).Get(t.Context()); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("Get without a bucket: %v, want %v", err, jetstream.ErrStreamNotFound)
	}
}
