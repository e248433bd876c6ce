package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// What strangers may try to have done, by the place where they say it.
var (
	hostileTables = []string{
		`sip_trace"; DROP TABLE sip_trace; --`, `sip_trace; DELETE FROM sip_trace`, `x' OR '1'='1`, "public.sip_trace", `"sip_trace"`,
		"SIP_TRACE", "sip-trace", "sip trace", "sip_trace\nDROP TABLE sip_trace", "sip_trace\x1b[2J", "1sip_trace", "_sip_trace", "tabelle_ä",
		"sip_trace\u202e", "../../etc/passwd", "$(reboot)", "%s%n", "t" + strings.Repeat("x", 40),
	}

	// These are for the database itself, and for views and partitions.
	keptTables = []string{"pg_class", "pg_catalog", "sqlite_master", "sip_trace_text", "sip_trace_p20261122", "sip_trace_p20261122_07"}

	hostileURIs = []string{
		"file:///etc/passwd", "http://127.0.0.1:CANARY/latest/meta-data", "exec:touch /tmp/x", "sips:127.0.0.1:CANARY", "127.0.0.1:CANARY",
		"sip:127.0.0.1:CANARY\r\nX: y", "sip:127.0.0.1:CANARY;transport=tcp", "sip:alice:secret@127.0.0.1:CANARY", "sip:127.0.0.1:CANARY%00",
		"sip:127.0.0.1:CANARY999999", "sip:127.0.0.1:-1", "sip:127.1:CANARY", "sip:0x7f000001:CANARY", "sip:2130706433:CANARY", "sip:[::1:CANARY",
		"hep+udp://:CANARY", "hep+udp://127.0.0.1:CANARY/../../x", "hep+udp://127.0.0.1:CANARY?version=4", "hep+tcp://127.0.0.1:CANARY?version=2",
		"hep+udp://127.0.0.1:CANARY?nope=1", "hep+udp://$(hostname):CANARY", "hep+udp://127.0.0.1:CANARY?node=" + strings.Repeat("x", 600),
	}

	// These are for the machine's owner to say, and nobody else.
	foreignURIs = []string{
		"hep+tls://127.0.0.1:CANARY?ca=/etc/passwd", "hep+tls://127.0.0.1:CANARY?cert=/etc/ssl/a.pem&key=/etc/ssl/private/key.pem",
		"hep+udp://127.0.0.1:CANARY?from=udp:127.0.0.1:53", "hep+udp://127.0.0.1:CANARY?taps=1", "hep+udp://127.0.0.1:CANARY?mark=0",
		"hep+udp://127.0.0.1:CANARY?fallback=hep%2Btcp://127.0.0.1:CANARY",
	}

	hostileUsers = []string{"", "alice\r\nbob", "\x1b[31malice", "a\tb", "alice\x7f", strings.Repeat("a", 256)}

	hostileHeaders = []string{
		"X-Tenant", "=x", "X Tenant=a", "X:Y=a", "X\r\nY=a", strings.Repeat("X", 65) + "=a", "f=sip:alice@example.com", "X-Tenant=",
		"X-Tenant=a\r\nb", "X-Tenant=a*b", `X-Tenant=a\b`, "X-Tenant=" + strings.Repeat("a", 256),
	}

	hostileExpressions = []string{
		`method == `, `methd == "INVITE"`, `status == "200"`, `status + 1`, `system("id") == ""`, `@message == @message`,
		`[1,2,3].all(x, [1,2,3].all(y, x != y))`, `["a"].map(x, x + x).size() > 0`, `user_agent.matches("(a{1000}){1000}")`,
		`user_agent.matches(from_user)`, `header(from_user) == "x"`, strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500),
		strings.TrimSuffix(strings.Repeat(`status==1||`, 150), "||"), `(user_agent + user_agent + user_agent + user_agent).contains(user_agent + user_agent)`,
		`from_user == "` + strings.Repeat("a", 3000) + `"`, `"'; DROP TABLE sip_trace; --"`,
	}
)

// A canary listens where hostile destinations would send.
type canary struct {
	udp *relay
	tcp *collector
}

func newCanary(t *testing.T) *canary {
	t.Helper()
	c := &canary{udp: newRelay(t, "")}
	c.tcp = collectTCPAt(t, c.udp.addr())
	return c
}

// named are destinations that name the canary.
func (c *canary) named(uris ...[]string) (all []string) {
	_, port, _ := net.SplitHostPort(c.udp.addr()) // it is one
	for _, uri := range slices.Concat(uris...) {
		all = append(all, strings.ReplaceAll(uri, "CANARY", port))
	}
	return all
}

func (c *canary) silent(t *testing.T) {
	t.Helper()
	c.tcp.mu.Lock()
	defer c.tcp.mu.Unlock()
	if len(c.udp.recorded()) > 0 || len(c.tcp.conns) > 0 || len(c.tcp.packets) > 0 {
		t.Errorf("%d datagrams and %d connections have come, want none", len(c.udp.recorded()), len(c.tcp.conns))
	}
}

// refuses fails the test unless a command says in plain text what is wrong with
// its last argument, and does nothing.
func refuses(t *testing.T, command string, args ...string) {
	t.Helper()
	r := run(t, "", command, args...)
	reason, tried, ok := strings.Cut(r.errors, "\ntry: ")
	if r.code != 2 || r.out != "" || !ok || len(tried) > 30 || len(reason) < 20 || len(reason) > 1000 {
		t.Errorf("%s %q: exit code %d, %q, and says %q; want 2, nothing, and a reason", command, args, r.code, r.out, last(r.errors))
	}
	if i := strings.IndexFunc(r.errors, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }); i >= 0 || !utf8.ValidString(r.errors) {
		t.Errorf("%s %q: hands what it was given to the terminal: %q", command, args, r.errors)
	}
}

// ruled are hostile words as arguments of ctl rule add, and as rules of those
// who write to the bucket themselves.
func ruled(c *canary) (args [][]string, rules []trace.Rule) {
	add := func(flag, word string, rule trace.Rule) {
		args, rules = append(args, []string{flag, word}), append(rules, rule)
	}
	for _, w := range slices.Concat(hostileTables, keptTables) {
		add("--table", w, trace.Rule{FromUser: []string{"alice"}, Table: w})
	}
	for _, w := range c.named(hostileURIs, foreignURIs) {
		add("--to", w, trace.Rule{FromUser: []string{"alice"}, Destinations: []string{w}})
	}
	for _, w := range hostileUsers {
		add("--user", w, trace.Rule{FromUser: []string{"alice"}, Users: []string{w}})
	}
	for _, w := range hostileHeaders {
		name, value, _ := strings.Cut(w, "=")
		add("--header", w, trace.Rule{FromUser: []string{"alice"}, Headers: map[string][]string{name: {value}}})
	}
	for _, w := range hostileExpressions {
		add("--when", w, trace.Rule{FromUser: []string{"alice"}, When: w})
	}
	return args, rules
}

func TestRule_ofHostileWordsIsRefusedAndIgnoredWhoeverStoresIt(t *testing.T) {
	nats, c := startNATS(t), newCanary(t)
	tap := startTap(t, nats.url(), "edge", freeAddr(t), t.TempDir()).ready(t)
	args, rules := ruled(c)
	if len(args) < 60 {
		t.Fatalf("%d hostile words, want more", len(args))
	}
	for _, a := range args {
		refuses(t, "ctl", append([]string{"rule", "add", "hostile", "--nats", nats.url(), "--caller", "alice"}, a...)...)
	}
	if list := must(t, "ctl", "rule", "list", "--nats", nats.url(), "--json"); list != "" {
		t.Errorf("stored all the same: %s", list)
	}

	// The tap leaves it to the forwarders what a version or a short address means.
	rules = slices.DeleteFunc(rules, func(r trace.Rule) bool {
		return slices.ContainsFunc(r.Destinations, func(d string) bool {
			return slices.ContainsFunc([]string{"transport=tcp", "127.1:", "0x7f", "2130706433", "version="}, func(s string) bool { return strings.Contains(d, s) })
		})
	})
	bucket, err := nats.stream(t).KeyValue(t.Context(), "siptrace")
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rules {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Put(t.Context(), fmt.Sprintf("rule.hostile-%d", i), b); err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 || i == len(rules)-1 {
			eventually(t, "the tap has them", func() bool { return tap.metric(t, "siptrace_tap_rules_ignored") > float64(i) })
		}
	}
	if n := tap.metric(t, "siptrace_tap_rules"); n > 0 {
		t.Errorf("%v of them count, want none", n)
	}
	c.silent(t)
}

func TestCommandLine_hostileTablesAndDestinationsAreRefused(t *testing.T) {
	d, c := database(t), newCanary(t)
	must(t, "ctl", "schema", "apply", "--store", d.url)
	before, file := d.relations(t), filepath.Join(t.TempDir(), "new.db")
	for _, w := range slices.Concat(hostileTables, keptTables) {
		refuses(t, "ctl", "schema", "create-table", "--store", d.url, "--", w)
	}
	refuses(t, "ctl", "schema", "create-table", "--store", "sqlite:"+file, hostileTables[0])
	for _, w := range hostileTables {
		refuses(t, "tap", "--in", "hep+udp://"+loopback+":0", "--http", "", "--table", w)
	}
	if after := d.relations(t); !slices.Equal(after, before) {
		t.Errorf("the database has %q, want %q", after, before)
	}
	if found, _ := filepath.Glob(file + "*"); len(found) > 0 {
		t.Errorf("%q were made", found)
	}
	for _, w := range c.named(hostileURIs) {
		refuses(t, "hep-forwarder", "--http", "", "--to", w)
	}
	c.silent(t)
}

// relations are all tables, views and indexes of the database.
func (d *db) relations(t *testing.T) []string {
	t.Helper()
	rows, err := d.connect(t).Query(t.Context(), "SELECT relkind::text || ' ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A plot is a batch of events whose marks are hostile.
type plot struct {
	tables, destinations, users []trace.Event
	next                        int
}

// event is a new event, of a call of its own.
func (p *plot) event() trace.Event {
	var e trace.Event
	p.next++
	packet := invite(p.next)
	trace.FromHEP(&e, &packet, new(trace.Names))
	return e
}

func (p *plot) make(c *canary) {
	p.tables, p.destinations, p.users = nil, nil, nil
	for _, w := range slices.Concat(hostileTables, keptTables, []string{"sip_trace\x00", "sip_trace\xff"}) {
		e := p.event()
		e.Table, e.Flags = w, trace.NoDuplicate
		e.Identify()
		p.tables = append(p.tables, e)
	}
	for _, w := range append(c.named(hostileURIs, foreignURIs), "sip:127.0.0.1\x00", "sip:192.0.2.66:5060", "hep+tcp://attacker.invalid") {
		e := p.event()
		e.Destinations, e.Flags = []string{w}, trace.NoStore
		e.Identify()
		p.destinations = append(p.destinations, e)
	}
	for _, w := range append(hostileUsers[1:], "a\xff", `'; DROP TABLE sip_trace; --`, `\x00`, "a\x00b", `a\N\.`) {
		e := p.event()
		e.TracedUsers, e.Flags = []string{w}, trace.UsersOnly|trace.NoDuplicate
		e.Identify()
		p.users = append(p.users, e)
	}
}

func (p *plot) all() []trace.Event { return slices.Concat(p.tables, p.destinations, p.users) }

// Marks that nobody has checked, for they did not come by a rule.
func TestMarks_hostileOnesReachNeitherDatabaseNorNetwork(t *testing.T) {
	d, nats, c, others := database(t), startNATS(t), newCanary(t), newRelay(t, "")
	writer := program(t, "db-writer", "--nats", nats.url(), "--store", d.url, "--create-tables", "--http", loopback+":0").ready(t)
	forwarder := program(t, "hep-forwarder", "--nats", nats.url(), "--to", "hep+udp://"+others.addr(), "--allow", loopback, "--http", loopback+":0").ready(t)
	strange, known := freeAddr(t), freeAddr(t)
	tap := program(t, "tap", "--nats", nats.url(), "--in", "hep+udp://"+strange, "--in", "hep+udp://"+known+"?trust=1",
		"--data", t.TempDir(), "--http", loopback+":0").ready(t)
	before := d.relations(t)
	p, rows, rejects := new(plot), 0, uint64(0)
	settles := func(t *testing.T) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d are rejected", rejects), func() bool { return rejected(t, nats) >= rejects })
		d.holds(t, rows)
		if n := rejected(t, nats); n != rejects {
			t.Errorf("%d rejects, want %d", n, rejects)
		}
	}

	t.Run("of frames in the stream are rejected", func(t *testing.T) {
		p.make(c)
		publish(t, nats.stream(t), p.all())
		rejects += uint64(len(p.tables) + len(p.destinations))
		rows += len(p.users)
		settles(t)
	})
	t.Run("of senders that nobody trusts are left out", func(t *testing.T) {
		p.make(c)
		s := send(t, "udp", strange)
		for _, e := range p.all() {
			s.bytes(packetOf(t, &e))
		}
		rows += len(p.all())
		settles(t)
		if got := tap.metric(t, "siptrace_tap_hep_marks_left_out_total", "reason", "not trusted"); got != float64(len(p.all())) {
			t.Errorf("%v events are counted, want %d", got, len(p.all()))
		}
	})
	t.Run("of senders that are trusted are rejected, or left out", func(t *testing.T) {
		p.make(c)
		s := send(t, "udp", known)
		left := 0
		for _, e := range p.all() {
			s.bytes(packetOf(t, &e))
			switch { // what is too long for its column or place is left out before
			case len(e.TracedUsers) > 0:
				rows++
				if len(e.TracedUsers[0]) > 255 {
					left++
				}
			case len(e.Destinations) > 0 && len(e.Destinations[0]) > 512:
				left++
			default:
				rejects++
			}
		}
		settles(t)
		got := tap.metric(t, "siptrace_tap_hep_marks_left_out_total", "reason", "user") + tap.metric(t, "siptrace_tap_hep_marks_left_out_total", "reason", "destination")
		if got != float64(left) {
			t.Errorf("%v marks are counted, want %d", got, left)
		}
	})

	reasons := []string{"bad table name", "unknown table", "wrong columns", "bad destination", "destination not allowed"}
	for _, r := range objects(t, must(t, "ctl", "reject", "list", "--nats", nats.url(), "--json", "--limit", "0")) {
		if reason, _ := r["reason"].(string); !slices.Contains(reasons, reason) || r["detail"] == "" {
			t.Errorf("rejected for %q, %q; want one of %q and what is wrong", reason, r["detail"], reasons)
		}
	}
	if after := d.relations(t); !slices.Equal(after, before) {
		t.Errorf("the database has %q, want %q", after, before)
	}
	c.silent(t)
	for _, pr := range []*process{tap, writer, forwarder} {
		pr.stop(t)
	}
}

// packetOf is an event as a program sends it that marks what it sends.
func packetOf(t *testing.T, e *trace.Event) []byte {
	t.Helper()
	b, err := trace.AppendEvent(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
