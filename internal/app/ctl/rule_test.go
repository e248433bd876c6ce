package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/demo"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// tap runs a tap on the bed and returns where it listens for HEP.
func (b *bed) tap(t *testing.T, name string) string {
	t.Helper()
	url := "hep+udp://" + freeAddr(t)
	flags := app.TapFlags{In: []string{url}, Mode: "all", AgentName: name, Buffer: 8 << 20, Compress: bus.CompressS2, Data: "off"}
	background(t, func(ctx context.Context) error {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		if code := app.Run(ctx, log, app.Base(log), app.TapModule(flags, bus.Options{URL: b.url, Name: name}, bus.StreamConfig{})); code != 0 {
			return fmt.Errorf("tap %s ended with code %d", name, code)
		}
		return nil
	})
	await(t, "the tap answers", func() bool {
		nodes, err := b.conn.Nodes(t.Context(), 50*time.Millisecond)
		return err == nil && strings.Contains(fmt.Sprint(nodes), name)
	})
	return url
}

func TestRule_fromAddToRemove(t *testing.T) {
	b := newBed(t)
	to := b.tap(t, "edge")
	b.must(t, "trace", "off")
	_, errs := b.must(t, "rule", "list")
	contains(t, errs, "no rules")

	out, errs := b.must(t, "rule", "add", "--caller", "alice", "--for", "2m", "--table", "sip_trace_alice", "--to", "sip:127.0.0.1:5085", "--who", "me", "--why", "ticket 4711")
	if out != "caller-alice\n" {
		t.Errorf("added %q, want a name made of what is selected", out)
	}
	contains(t, errs, "caller=alice → table=sip_trace_alice to=sip:127.0.0.1:5085", "1/1 of the taps have it", "--create-tables", "--allow")
	if strings.Contains(errs, "tracing is on") {
		t.Errorf("said\n%s\nthough tracing is off", errs)
	}

	if code, _, errs := run(t, "", "demo", to); code != 0 {
		t.Fatalf("demo: %s", errs)
	}
	var shown ruleView
	await(t, "the rule has matched", func() bool {
		out, _ := b.must(t, "rule", "show", "caller-alice", "--json")
		if err := json.Unmarshal([]byte(out), &shown); err != nil {
			t.Fatal(err)
		}
		return shown.Matched == 30 // of 35 messages in the demonstration: the calls of alice
	})
	if shown.State != "active" || shown.Rule.Why != "ticket 4711" || len(shown.Taps) != 1 || !shown.Taps[0].Has {
		t.Errorf("shown %+v", shown)
	}
	out, _ = b.must(t, "rule", "show", "caller-alice")
	contains(t, out, "caller=alice", "ticket 4711", "left", "edge")
	out, _ = b.must(t, "rule", "list")
	contains(t, out, "caller-alice", "active", "1/1", "30", "table=sip_trace_alice", "me")
	out, _ = b.must(t, "status", "--interval", "1ms")
	contains(t, out, "RULE", "caller-alice", "1/1")

	out, _ = b.must(t, "rule", "remove", "caller-alice", "--who", "you", "--why", "done")
	contains(t, out, "removed caller-alice")
	if code, _, errs := b.ctl(t, "rule", "remove", "caller-alice"); code != 1 || !strings.Contains(errs, "no such rule") {
		t.Errorf("removed again: exit %d, says %q", code, errs)
	}
	out, _ = b.must(t, "rule", "history")
	contains(t, out, "added", "me", "ticket 4711", "removed", "you", "done")
	var changes []changeView
	out, _ = b.must(t, "rule", "history", "caller-alice", "--json")
	for line := range strings.Lines(out) {
		var c changeView
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		changes = append(changes, c)
	}
	if len(changes) != 2 || changes[0].What != "added" || changes[1].What != "removed" || changes[1].Who != "you" {
		t.Errorf("history %+v", changes)
	}
	if code, _, _ := b.ctl(t, "rule", "history", "nobody"); code != 1 {
		t.Errorf("history of a rule that never was: exit %d, want 1", code)
	}
}

func TestRuleAdd_names(t *testing.T) {
	b := newBed(t)
	add := func(args ...string) string {
		out, _ := b.must(t, append([]string{"rule", "add"}, args...)...)
		return strings.TrimSpace(out)
	}
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"caller-alice", []string{"--caller", "alice"}},
		{"caller-alice-2", []string{"--caller", "alice", "--callee", "bob"}},
		{"caller--49", []string{"--caller", "+49*"}},
		{"callee-bob", []string{"--callee", "bob"}},
		{"addr-10-0-0-0-8", []string{"--addr", "10.0.0.0/8"}},
		{"header-X-Tenant", []string{"--header", "X-Tenant=acme"}},
		{"rule", []string{"--when", "status >= 500"}},
		{"rule-2", []string{"--sample", "10%"}},
		{"mine", []string{"mine", "--caller", "alice"}},
	} {
		if got := add(tt.args...); got != tt.want {
			t.Errorf("rule add %v: %s, want %s", tt.args, got, tt.want)
		}
	}
	code, _, errs := b.ctl(t, "rule", "add", "mine", "--callee", "bob")
	if code != 1 || !strings.Contains(errs, "--replace") || !strings.Contains(errs, "caller=alice") {
		t.Errorf("a name that is taken: exit %d, says %q", code, errs)
	}
	add("mine", "--callee", "bob", "--replace")
	if code, _, _ := b.ctl(t, "rule", "add", "new", "--callee", "bob", "--replace"); code != 1 {
		t.Errorf("replacing what is not there: exit %d, want 1", code)
	}
	store := bus.NewRuleStore(b.conn)
	old := trace.Rule{Name: "old", Expires: time.Now().Add(-time.Minute)}
	older := trace.Rule{Name: "older", Expires: time.Now().Add(-25 * time.Hour)}
	for _, r := range []trace.Rule{old, older} {
		if _, err := store.Put(t.Context(), r, 0); err != nil {
			t.Fatal(err)
		}
	}
	add("other", "--callee", "bob")
	out, _ := b.must(t, "rule", "list")
	contains(t, out, "expired")
	if strings.Contains(out, "older") {
		t.Errorf("a rule that expired yesterday is still there:\n%s", out)
	}
	add("old", "--callee", "bob") // an expired rule makes room
}

func TestRuleAdd_showsWhatIsWrongByFlag(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"--caller", "a*b"}, `--caller "a*b" has a * inside`},
		{[]string{"--callee", ""}, "--callee is empty"},
		{[]string{"--ruri", "a\x00"}, "--ruri"},
		{[]string{"--caller-domain", `a\b`}, "--caller-domain"},
		{[]string{"--src", "pbx"}, `--src "pbx"`},
		{[]string{"--addr", "10.0.0.1/8"}, "10.0.0.0/8?"},
		{[]string{"--header", "X"}, "NAME=VALUE"},
		{[]string{"--header", "X Y=z"}, `--header "X Y"`},
		{[]string{"--header", "X-Y=a*b"}, `--header "a*b"`},
		{[]string{"--caller", "a", "--table", "A;DROP TABLE x"}, `--table "A;DROP TABLE x"`},
		{[]string{"--caller", "a", "--user", "x\ny"}, "--user"},
		{[]string{"--caller", "a", "--user-from", "contact"}, "--user-from"},
		{[]string{"--caller", "a", "--to", "http://h"}, `--to "http://h"`},
		{[]string{"--caller", "a", "--to", "sip:127.1"}, "neither an address nor a host name"},
		{[]string{"--caller", "a", "--to", "hep+tcp://h?version=2"}, "version 2 over a stream"},
		{[]string{"--caller", "a", "--drop", "--table", "x"}, "--drop leaves nothing"},
		{[]string{"--when", "method = 'INVITE'"}, "--when at 1:8:"},
		{[]string{"--when", "status == 'x' && methd == ''"}, "--when at 1:"},
		{[]string{"--sample", "0%"}, "share"},
		{[]string{"--sample", "101"}, "share"},
		{[]string{"--sample", "NaN"}, "share"},
		{[]string{"--scope", "session", "--caller", "a"}, "--scope"},
		{[]string{"--until", "yesterday", "--caller", "a"}, "yesterday"},
		{[]string{"--until", "2020-01-01", "--caller", "a"}, "is over"},
		{[]string{"--until", "2036-01-01", "--for", "1h", "--caller", "a"}, "--for"},
		{[]string{"a.b", "--caller", "a"}, "--name"},
		{[]string{"--replace", "--caller", "a"}, "--replace"},
		{[]string{"--for", "1h"}, "--all"},
		{nil, "--all"},
	}
	for _, tt := range tests {
		code, _, errs := run(t, "", append([]string{"rule", "add"}, tt.args...)...)
		if code != 2 || !strings.Contains(errs, tt.want) {
			t.Errorf("rule add %q: exit %d, says %q; want 2 and %q", tt.args, code, errs, tt.want)
		}
	}
}

// demonstration writes the demonstration's calls to a file of HEP.
func demonstration(t *testing.T) string {
	t.Helper()
	var b []byte
	for _, call := range demo.Calls(time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), "x") {
		for i := range call.Messages {
			var err error
			if b, err = call.Messages[i].AppendHEP(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "demo.hep")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRuleTest_saysWhatWouldBecomeOfEachMessage(t *testing.T) {
	file := demonstration(t)
	code, out, errs := run(t, "", "rule", "test", file, "--utc", "--caller", "alice", "--callee", "bob", "--user", "alice", "--table", "sip_trace_alice", "--to", "hep+udp://h?auth=secret")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	golden(t, "rule-test.txt", out+errs)
	_, out, _ = run(t, "", "rule", "test", file, "--utc", "--method", "REGISTER", "--drop", "--scope", "message", "--trace", "on", "--matched")
	golden(t, "rule-test-drop.txt", out)
}

func TestRuleTest_readsRulesFromFilesAndCaptures(t *testing.T) {
	dir := t.TempDir()
	plain, shown := filepath.Join(dir, "plain.json"), filepath.Join(dir, "shown.json")
	for path, text := range map[string]string{
		plain: `{"from_user":["alice"],"when":"method == 'INVITE' && status == 487"}`,
		shown: `{"rule":{"name":"other","to_user":["bob"],"table":"other"},"revision":3}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pcap := filepath.Join("..", "..", "capture", "testdata", "core_init1.pcapng.gz")
	code, out, errs := run(t, "", "rule", "test", pcap, "--rule", plain, "--rule", shown, "--json", "--matched")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	rules := make(map[string]int)
	followed := 0
	for line := range strings.Lines(out) {
		var v struct {
			Passes bool
			CallID string
			Rules  []struct {
				Name     string
				Followed bool
			}
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		for _, r := range v.Rules {
			rules[r.Name]++
			if r.Followed {
				followed++
			}
		}
		if !v.Passes || v.CallID == "" {
			t.Errorf("a message that a rule selects: %s", line)
		}
	}
	// Of the call that was cancelled: 487 and ACK on one side, then on the other.
	if rules["caller-alice"] != 4 || followed != 2 || rules["other"] == 0 {
		t.Errorf("rules apply to %v messages, %d because of their call; want 4 and 2 for caller-alice", rules, followed)
	}
	contains(t, errs, "rule caller-alice applies to 4", "tracing off")
	if err := os.WriteFile(plain, []byte(`{"from_usr":["alice"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t, "", "rule", "test", pcap, "--rule", plain); code != 1 || !strings.Contains(errs, "from_usr") {
		t.Errorf("a rule with an unknown field: exit %d, says %q", code, errs)
	}
}

func TestRuleTest_asksTheRulesOfTheTaps(t *testing.T) {
	b := newBed(t)
	file := demonstration(t)
	b.must(t, "rule", "add", "mine", "--caller", "alice")
	if _, err := bus.NewRuleStore(b.conn).Put(t.Context(), trace.Rule{Name: "bad", When: "1 +"}, 0); err != nil {
		t.Fatal(err)
	}
	_, errs := b.must(t, "rule", "test", file)
	contains(t, errs, "rule bad is ignored: when:1:", "tracing on: 35 pass", "rule mine applies to 30")
	_, errs = b.must(t, "rule", "test", file, "--trace", "off")
	contains(t, errs, "tracing off: 30 pass, 0 dropped, 5 not traced")
	out, _ := b.must(t, "rule", "list")
	contains(t, out, "no good")
	out, _ = b.must(t, "rule", "remove", "bad")
	contains(t, out, "removed bad")
	if code, _, errs := run(t, "", "rule", "test", file, "--nats", "nats://127.0.0.1:1"); code != 1 || !strings.Contains(errs, "--rule") {
		t.Errorf("without NATS: exit %d, says %q", code, errs)
	}
}
