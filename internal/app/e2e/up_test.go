package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An up is a running ctl up.
type up struct {
	*process
	dir, in, nats, store string
}

func startUp(t *testing.T) *up {
	t.Helper()
	u := &up{dir: filepath.Join(t.TempDir(), "data"), in: "hep+udp://" + freeAddr(t), nats: freeAddr(t)}
	u.store = "sqlite:" + filepath.Join(u.dir, "siptrace.db")
	u.start(t)
	return u
}

func (u *up) start(t *testing.T) {
	t.Helper()
	u.process = program(t, "ctl", "up", "--dir", u.dir, "--in", u.in, "--nats-listen", u.nats, "--http", loopback+":0")
	u.ready(t)
	u.logged(t, "source started")
}

// search returns what ctl search --json finds.
func (u *up) search(t *testing.T, flags ...string) []map[string]any {
	t.Helper()
	r := run(t, "", "ctl", append([]string{"search", "--store", u.store, "--json", "--limit", "0"}, flags...)...)
	if r.code != 0 {
		t.Fatalf("ctl search: exit code %d\n%s", r.code, r.errors)
	}
	return objects(t, r.out)
}

// objects reads one JSON object a line.
func objects(t *testing.T, text string) []map[string]any {
	t.Helper()
	var list []map[string]any
	for line := range strings.Lines(text) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, v)
	}
	return list
}

// demoMessages is how many messages ctl demo sends.
const demoMessages = 35

func TestUp_runsEverythingInOneProcess(t *testing.T) {
	u := startUp(t)
	eventually(t, "it says what to type next", func() bool { return strings.Contains(u.out.String(), "Ctrl-C ends it") })
	for _, words := range []string{u.in, u.nats, u.store, "demo " + u.in, "search --store " + u.store, "status --nats nats://" + u.nats} {
		if !strings.Contains(u.out.String(), words) {
			t.Errorf("does not say %q:\n%s", words, u.out.String())
		}
	}
	demo := must(t, "ctl", "demo", u.in)
	if !strings.Contains(demo, "35 messages of 4 calls") {
		t.Fatalf("ctl demo says %q", demo)
	}
	eventually(t, "the demonstration is stored", func() bool { return len(u.search(t)) == demoMessages })

	t.Run("search", func(t *testing.T) { u.testSearch(t) })
	t.Run("flow", func(t *testing.T) { u.testFlow(t) })
	t.Run("tail", func(t *testing.T) { u.testTail(t) })
	t.Run("status", func(t *testing.T) { u.testStatus(t) })

	before := u.search(t)
	u.stop(t)
	u.start(t)
	if after := u.search(t); len(after) != len(before) {
		t.Errorf("%d messages are stored after a restart, want %d", len(after), len(before))
	}
	u.stop(t)
}

// columns are the keys of a row as JSON; msg or msg_b64 come with them.
var columns = []string{
	"callid", "correlation_id", "cseq", "direction", "event_id", "from_user", "fromip", "fromtag", "id", "method", "node",
	"ruri_user", "status", "time_stamp", "time_us", "to_user", "toip", "totag", "traced_user", "transport",
}

func (u *up) testSearch(t *testing.T) {
	rows := u.search(t)
	for _, row := range rows {
		var keys []string
		for key := range row {
			if key != "msg" && key != "msg_b64" {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		if !slices.Equal(keys, columns) {
			t.Fatalf("keys %v, want %v", keys, columns)
		}
		_, text := row["msg"]
		_, bytes := row["msg_b64"]
		if text == bytes {
			t.Errorf("row %v has msg %v and msg_b64 %v, want one", row["event_id"], text, bytes)
		}
	}
	if got := u.search(t, "--method", "REGISTER"); len(got) != 4 {
		t.Errorf("--method REGISTER finds %d, want 4", len(got))
	}
	if got := u.search(t, "--addr", "192.0.2.66"); len(got) != 1 || got[0]["msg_b64"] == nil {
		t.Errorf("--addr finds %v, want the broken message, in base64", got)
	}
	if got := u.search(t, "--from", "2020-01-01", "--to-time", "2020-01-02"); len(got) != 0 {
		t.Errorf("--from and --to-time find %d, want none", len(got))
	}
	if got := u.search(t, "--from", "2020-01-01"); len(got) != demoMessages {
		t.Errorf("--from finds %d, want %d", len(got), demoMessages)
	}
	table := must(t, "ctl", "search", "--store", u.store, "--utc", "--user", "bob", "--limit", "3")
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "TIME") || !strings.HasSuffix(lines[0], "CALL-ID") {
		t.Errorf("the table is\n%swant a head and 3 rows", table)
	}
	r := run(t, "", "ctl", "search", "--store", u.store, "--user", "nobody")
	if r.code != 1 || r.out != "" || !strings.Contains(r.errors, "--since") {
		t.Errorf("nothing found: exit code %d, %q %q, want 1 and what to try", r.code, r.out, r.errors)
	}
}

func (u *up) testFlow(t *testing.T) {
	var call string
	for _, row := range u.search(t, "--method", "BYE") {
		call = row["callid"].(string)
	}
	flow := must(t, "ctl", "flow", "--store", u.store, "--utc", call)
	for _, words := range []string{call, "17 messages", "INVITE", "407", "180", "200", "ACK", "BYE", "192.0.2.10", "203.0.113.20"} {
		if !strings.Contains(flow, words) {
			t.Errorf("the ladder does not say %q:\n%s", words, flow)
		}
	}
	if raw := must(t, "ctl", "flow", "--store", u.store, "--raw", call); !strings.Contains(raw, "a=rtpmap:101 telephone-event/8000") {
		t.Errorf("--raw does not show the messages:\n%s", raw)
	}
	if r := run(t, "", "ctl", "flow", "--store", u.store, "nobody@nowhere"); r.code != 1 || !strings.Contains(r.errors, "nobody@nowhere") {
		t.Errorf("no such call: exit code %d, %q, want 1 and the call", r.code, r.errors)
	}
}

func (u *up) testTail(t *testing.T) {
	seen := objects(t, must(t, "ctl", "tail", "--nats", "nats://"+u.nats, "--since", "1h", "-n", "35", "--json"))
	stored := u.search(t)
	if len(seen) != len(stored) {
		t.Fatalf("tail --since shows %d messages, want %d", len(seen), len(stored))
	}
	ids := make(map[any]bool)
	for _, row := range stored {
		ids[row["event_id"]] = true
	}
	for _, e := range seen {
		if !ids[e["event_id"]] {
			t.Errorf("tail shows %v, which is not stored", e["event_id"])
		}
	}
	tail := program(t, "ctl", "tail", "--nats", "nats://"+u.nats, "-n", "2", "--method", "BYE", "--color", "never")
	sent := 0
	eventually(t, "tail shows two and ends", func() bool {
		must(t, "ctl", "demo", u.in) // it may not have begun when the first is sent
		sent += demoMessages
		return !tail.alive()
	})
	if code := tail.wait(t); code != 0 {
		t.Errorf("tail -n 2 ended with code %d, want 0", code)
	}
	if got := strings.Count(tail.out.String(), "BYE"); got != 2 || strings.Contains(tail.out.String(), "INVITE") {
		t.Errorf("tail -n 2 --method BYE shows\n%s", tail.out.String())
	}
	eventually(t, "all are stored", func() bool { return len(u.search(t)) == len(stored)+sent })
}

func (u *up) testStatus(t *testing.T) {
	nats := "nats://" + u.nats
	var status struct {
		State struct{ Enabled bool }
		Nodes []struct{ Service string }
	}
	if err := json.Unmarshal([]byte(must(t, "ctl", "status", "--nats", nats, "--json", "--interval", "50ms")), &status); err != nil {
		t.Fatal(err)
	}
	var services []string
	for _, n := range status.Nodes {
		services = append(services, n.Service)
	}
	slices.Sort(services)
	if !status.State.Enabled || !slices.Equal(services, []string{"db-writer", "tap"}) {
		t.Errorf("status shows %+v, want enabled, a tap and a db-writer", status)
	}
	table := must(t, "ctl", "status", "--nats", nats, "--interval", "50ms")
	for _, words := range []string{"Enabled", "SERVICE", "tap", "db-writer", "CONSUMER"} {
		if !strings.Contains(table, words) {
			t.Errorf("status does not say %q:\n%s", words, table)
		}
	}
}

func TestHEPDecode_printsOneObjectAPacket(t *testing.T) {
	const sample = "48455033 0071 000000010007 02 000000020007 11 00000003000a d4ca0001 00000004000a 52740030 " +
		"000000070008 2eea 000000080008 13c4 00000009000a 4e4982cb 0000000a000a 0001d4c0 0000000b0007 01 " +
		"0000000c000a 000000e4 0000000f0014 494e56495445207369703a626f62"
	r := run(t, sample+"\n"+sample[:40]+"\n"+sample+"\n", "ctl", "hep", "decode", "--hex", "-")
	packets := objects(t, r.out)
	if r.code != 1 || len(packets) != 3 {
		t.Fatalf("exit code %d and %d objects, want 1 and 3\n%s", r.code, len(packets), r.out)
	}
	if why, ok := packets[1]["error"].(string); !ok || why == "" || len(packets[1]) != 1 {
		t.Errorf("a cut packet is %v, want an error alone", packets[1])
	}
	for _, i := range []int{0, 2} {
		if p := packets[i]; p["src"] != "212.202.0.1:12010" || p["capture_id"] != 228.0 || p["payload"] != "SU5WSVRFIHNpcDpib2I=" {
			t.Errorf("packet %d is %v", i, p)
		}
	}
	if r := run(t, sample+"\n", "ctl", "hep", "decode", "--hex", "-"); r.code != 0 || strings.Contains(r.out, "error") {
		t.Errorf("a good packet: exit code %d, %s", r.code, r.out)
	}
	p := invite(1)
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	r = run(t, string(b)+string(b), "ctl", "hep", "decode", "-")
	if got := objects(t, r.out); r.code != 0 || len(got) != 2 || got[1]["node"] != "tester" {
		t.Errorf("two packets on standard input: exit code %d, %v", r.code, got)
	}
}
