package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// watchedRules collects what a watch of rules tells.
type watchedRules struct {
	mu   sync.Mutex
	told [][]bus.StoredRule
}

func (w *watchedRules) tell(rules []bus.StoredRule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, rules)
}

// last is what was told last, as "name@revision", and how often was told.
func (w *watchedRules) last() (rules string, times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) == 0 {
		return "untold", 0
	}
	var names []string
	for _, r := range w.told[len(w.told)-1] {
		name := fmt.Sprintf("%s@%d", r.Name, r.Revision)
		if r.Err != nil {
			name += "!"
		}
		names = append(names, name)
	}
	return strings.Join(names, " "), len(w.told)
}

func (w *watchedRules) is(want string) func() bool {
	return func() bool { got, _ := w.last(); return got == want }
}

func watchRules(t *testing.T, c *bus.Conn, last ...bus.StoredRule) *watchedRules {
	t.Helper()
	w := &watchedRules{}
	running(t, func(ctx context.Context) error { return bus.NewRuleStore(c).Watch(ctx, last, w.tell) })
	return w
}

// putRule writes a rule whatever it was, and returns its revision.
func putRule(t *testing.T, c *bus.Conn, r trace.Rule) uint64 {
	t.Helper()
	store := bus.NewRuleStore(c)
	now, err := store.Get(t.Context(), r.Name)
	if err != nil && !errors.Is(err, bus.ErrNoRule) {
		t.Fatal(err)
	}
	revision, err := store.Put(t.Context(), r, now.Revision)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func fullRule() trace.Rule {
	at := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	return trace.Rule{
		Name: "full", Methods: []string{"INVITE"}, FromUser: []string{"alice", "al*"}, FromDomain: []string{"a"}, ToUser: []string{"b"}, ToDomain: []string{"c"},
		RURIUser: []string{"d"}, RURIDomain: []string{"e"}, CallID: []string{"f"}, Src: []string{"10.0.0.0/8"}, Dst: []string{":5060"}, Addr: []string{"::1"},
		Headers: map[string][]string{"User-Agent": {"*x*"}}, When: "status == 0", Scope: trace.ScopeMessage, Table: "t", Users: []string{"u"},
		UsersFrom: []string{"from"}, Destinations: []string{"sip:h"}, NoStore: true, NoDuplicate: true, Drop: true, Sample: 12.5,
		Agents: []string{"2001"}, Expires: at.Add(time.Hour), MaxEvents: 7, Who: "w", Why: "y", Created: at,
	}
}

func TestRuleStore_keepsEveryField(t *testing.T) {
	_, c := bed(t)
	store := bus.NewRuleStore(c)
	want := fullRule()
	for i := range reflect.TypeFor[trace.Rule]().NumField() {
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Fatalf("the rule of this test does not set %s", reflect.TypeFor[trace.Rule]().Field(i).Name)
		}
	}
	revision := putRule(t, c, want)
	got, err := store.Get(t.Context(), "full")
	if err != nil || got.Revision != revision || !reflect.DeepEqual(got.Rule, want) {
		t.Errorf("Get = %+v, %v\nwant %+v at revision %d", got, err, want, revision)
	}
	putRule(t, c, trace.Rule{Name: "a"})
	set(t, c, bus.State{Who: "alice"}) // the state is no rule
	all, err := store.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "full" {
		t.Errorf("List = %+v, %v; want a and full", all, err)
	}
}

func TestRuleStore_theSlowerOneIsTold(t *testing.T) {
	_, c := bed(t)
	store := bus.NewRuleStore(c)
	first, err := store.Put(t.Context(), trace.Rule{Name: "r", Who: "alice"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := store.Put(t.Context(), trace.Rule{Name: "r", Who: "bob"}, first)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"a new rule of that name": func() error { _, err := store.Put(t.Context(), trace.Rule{Name: "r"}, 0); return err }(),
		"an old revision":         func() error { _, err := store.Put(t.Context(), trace.Rule{Name: "r"}, first); return err }(),
		"a removal":               store.Delete(t.Context(), "r", first, bus.Removal{}),
	} {
		if !errors.Is(err, bus.ErrRuleConflict) || !strings.Contains(err.Error(), `by "bob"`) {
			t.Errorf("%s: error = %v, want a conflict that names bob", name, err)
		}
	}
	if err := store.Delete(t.Context(), "r", second, bus.Removal{Who: "carol"}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), trace.Rule{Name: "r"}, second); !errors.Is(err, bus.ErrRuleConflict) || !strings.Contains(err.Error(), "not there any more") {
		t.Errorf("Put over a removed rule: %v, want a conflict", err)
	}
	if _, err := store.Get(t.Context(), "r"); !errors.Is(err, bus.ErrNoRule) {
		t.Errorf("Get of a removed rule: %v, want %v", err, bus.ErrNoRule)
	}
	if all, err := store.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("List = %v, %v, want nothing", all, err)
	}
	if _, err := store.Put(t.Context(), trace.Rule{Name: "r"}, 0); err != nil {
		t.Errorf("a removed rule cannot be added again: %v", err)
	}
}

func TestRuleStore_historyKeepsWhoDidWhat(t *testing.T) {
	_, c := bed(t)
	store := bus.NewRuleStore(c)
	if got, err := store.History(t.Context(), "r"); err != nil || len(got) != 0 {
		t.Fatalf("History of nothing = %v, %v", got, err)
	}
	putRule(t, c, trace.Rule{Name: "r", Who: "alice", Table: "one"})
	putRule(t, c, trace.Rule{Name: "other", Who: "dave"})
	last := putRule(t, c, trace.Rule{Name: "r", Who: "bob", Table: "two"})
	if err := store.Delete(t.Context(), "r", last, bus.Removal{Who: "carol", Why: "done"}); err != nil {
		t.Fatal(err)
	}
	got, err := store.History(t.Context(), "r")
	if err != nil || len(got) != 3 {
		t.Fatalf("History = %+v, %v, want three entries", got, err)
	}
	if got[0].Who != "alice" || got[1].Who != "bob" || got[1].Table != "two" || got[1].Removed || got[1].When.IsZero() {
		t.Errorf("the rule was %+v", got[:2])
	}
	if end := got[2]; !end.Removed || end.Who != "carol" || end.Why != "done" || end.Name != "r" {
		t.Errorf("its end is %+v, want it removed by carol", end)
	}
	all, err := store.History(t.Context(), "")
	if err != nil || len(all) != 4 || all[1].Name != "other" {
		t.Errorf("History of all = %+v, %v, want four entries in order", all, err)
	}
}

func TestRuleStore_refusesNamesThatAreNoKeys(t *testing.T) {
	_, c := bed(t)
	store := bus.NewRuleStore(c)
	for _, name := range []string{"", "a.b", "*", ">", "a b", "a\n", "ä"} {
		if _, err := store.Put(t.Context(), trace.Rule{Name: name}, 0); err == nil {
			t.Errorf("rule %q was stored", name)
		}
		if _, err := store.Get(t.Context(), name); err == nil || errors.Is(err, bus.ErrNoRule) {
			t.Errorf("Get(%q): %v, want another error", name, err)
		}
	}
	if _, err := store.Put(t.Context(), trace.Rule{Name: "r", Users: []string{strings.Repeat("u", 70_000)}}, 0); err == nil {
		t.Error("a rule of 70,000 bytes was stored")
	}
}

func TestRuleStore_saysWhatCannotBeRead(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	kv, err := js.KeyValue(t.Context(), bus.BucketName)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"rule.good": `{"from_user":["alice"],"name":"another"}`, "rule.text": `trace alice`, "rule.null": `null`, "rule.list": `[]`,
		"rule.newer": `{"from_user":["alice"],"from_moon":["x"]}`, "rule.two": `{} {}`, "rule.a.b": `{}`, "rules": `{}`,
	} {
		if _, err := kv.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := bus.NewRuleStore(c).List(t.Context())
	if err != nil || len(all) != 6 {
		t.Fatalf("List = %+v, %v, want six rules", all, err)
	}
	for _, r := range all {
		if (r.Err == nil) != (r.Name == "good") {
			t.Errorf("rule %s: error %v", r.Name, r.Err)
		}
	}
	w := watchRules(t, c)
	eventually(t, "all rules are told, five of them as no good", func() bool {
		got, _ := w.last()
		return strings.Count(got, "@") == 6 && strings.Count(got, "!") == 5
	})
}

func TestWatchRules_aChangeArrivesAtOnce(t *testing.T) {
	_, c := bed(t)
	putRule(t, c, trace.Rule{Name: "before"})
	w := watchRules(t, c)
	eventually(t, "what was there is told", w.is("before@1"))
	for i := range 20 {
		start := time.Now()
		revision := putRule(t, c, trace.Rule{Name: "r", MaxEvents: uint64(i)})
		eventually(t, "the rule is told", w.is(fmt.Sprintf("before@1 r@%d", revision)))
		if err := bus.NewRuleStore(c).Delete(t.Context(), "r", revision, bus.Removal{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its removal is told", w.is("before@1"))
		if took := time.Since(start); took > heard {
			t.Errorf("change %d took %v", i, took)
		}
		set(t, c, bus.State{On: i%2 == 0, Who: "alice"}) // goes by unheeded
	}
	if _, n := w.last(); n > 2+2*20 {
		t.Errorf("told %d times, want once for each change", n)
	}
}

func TestWatchRules_survivesARestartOfTheServer(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	s := startServer(t, dir, addr)
	c := connect(t, "nats://"+addr, "tap")
	ensure(t, c, bus.StreamConfig{})
	w := watchRules(t, c)
	first := putRule(t, c, trace.Rule{Name: "r"})
	eventually(t, "the rule is told", w.is(fmt.Sprintf("r@%d", first)))
	s.Shutdown()
	if !w.is(fmt.Sprintf("r@%d", first))() {
		t.Error("without the server the rule is gone")
	}
	startServer(t, dir, addr)
	ctl := connect(t, "nats://"+addr, "ctl")
	ensure(t, ctl, bus.StreamConfig{})
	second := putRule(t, ctl, trace.Rule{Name: "r", Table: "x"}) // perhaps before the tap is back
	eventually(t, "the change is told", w.is(fmt.Sprintf("r@%d", second)))
	third := putRule(t, ctl, trace.Rule{Name: "s"})
	eventually(t, "the next one is, too", w.is(fmt.Sprintf("r@%d s@%d", second, third)))
}

func TestWatchRules_noticesThatTheBucketWasMadeAnew(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	w := watchRules(t, c)
	for i := range 5 {
		putRule(t, c, trace.Rule{Name: fmt.Sprintf("r%d", i)})
	}
	eventually(t, "five rules are told", w.is("r0@1 r1@2 r2@3 r3@4 r4@5"))
	if err := js.DeleteKeyValue(t.Context(), bus.BucketName); err != nil {
		t.Fatal(err)
	}
	if !w.is("r0@1 r1@2 r2@3 r3@4 r4@5")() {
		t.Error("without a bucket the rules are gone")
	}
	ensure(t, c, bus.StreamConfig{})
	putRule(t, c, trace.Rule{Name: "new"})
	eventually(t, "the rule of the new bucket is told, and no other", w.is("new@1"))
}

func TestWatchRules_startsWithWhatIsKnown(t *testing.T) {
	addr := freeAddr(t)
	tap := connect(t, "nats://"+addr, "tap") // before the server
	w := watchRules(t, tap, bus.StoredRule{Rule: trace.Rule{Name: "known"}, Revision: 9})
	eventually(t, "the known rule is told at once", w.is("known@9"))
	startServer(t, t.TempDir(), addr)
	ctl := connect(t, "nats://"+addr, "ctl")
	ensure(t, ctl, bus.StreamConfig{})
	eventually(t, "the bucket's word counts", w.is(""))
}

func TestRules_areKeptInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.json")
	if rules, err := bus.LoadRules(path); err != nil || len(rules) != 0 {
		t.Fatalf("LoadRules without a file = %v, %v", rules, err)
	}
	want := []bus.StoredRule{{Rule: fullRule(), Revision: 17}, {Rule: trace.Rule{Name: "z"}, Revision: 3}}
	for range 2 {
		bad := bus.StoredRule{Rule: trace.Rule{Name: "bad"}, Err: errors.New("not read")}
		if err := bus.SaveRules(path, append([]bus.StoredRule{bad}, want...)); err != nil {
			t.Fatal(err)
		}
		if got, err := bus.LoadRules(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("LoadRules = %+v, %v, want %+v", got, err, want)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("%d files are left, want 1", len(files))
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.LoadRules(path); err == nil {
		t.Error("a broken file was read")
	}
	if err := bus.SaveRules(filepath.Join(path, "no", "folder"), nil); err == nil {
		t.Error("rules were saved in no folder")
	}
}

func TestExampleServer_permissionsAreEnoughForRules(t *testing.T) {
	as, _ := exampleServer(t, 1)
	ensure(t, as("admin", "ctl"), bus.StreamConfig{})
	tap, ctl := as("tap", "tap"), as("ctl", "ctl")
	putRule(t, ctl, trace.Rule{Name: "before"})
	w := watchRules(t, tap)
	eventually(t, "the tap reads the rule", w.is("before@1"))
	putRule(t, ctl, trace.Rule{Name: "r"})
	eventually(t, "the tap hears the other", w.is("before@1 r@2"))
	if err := bus.NewRuleStore(ctl).Delete(t.Context(), "r", 2, bus.Removal{Who: "alice"}); err != nil {
		t.Error(err)
	}
	if h, err := bus.NewRuleStore(ctl).History(t.Context(), ""); err != nil || len(h) != 3 {
		t.Errorf("History = %v, %v, want three entries", h, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := bus.NewRuleStore(tap).Put(ctx, trace.Rule{Name: "t"}, 0); err == nil {
		t.Error("a tap made a rule")
	}
}

func TestRuleStore_withoutABucketSaysSo(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	if err := js.DeleteKeyValue(t.Context(), bus.BucketName); err != nil {
		t.Fatal(err)
	}
	store := bus.NewRuleStore(c)
	if _, err := store.List(t.Context()); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("List: %v, want %v", err, jetstream.ErrStreamNotFound)
	}
	if _, err := store.Put(t.Context(), trace.Rule{Name: "r"}, 0); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("Put: %v, want %v", err, jetstream.ErrBucketNotFound)
	}
}
