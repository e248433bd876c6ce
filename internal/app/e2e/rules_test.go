package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
)

// A talk is a call of two people at two hosts.
type talk struct{ id, from, to string }

// What is said in a call. "200 INVITE" is a reply; "< BYE" is a request that
// the callee sends.
var (
	begun     = []string{"INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK"}
	hungUp    = []string{"BYE", "200 BYE"}
	hungUpOn  = []string{"< INVITE", "< 200 INVITE", "< ACK", "< BYE", "< 200 BYE"}
	cancelled = []string{"INVITE", "100 INVITE", "180 INVITE", "CANCEL", "200 CANCEL", "487 INVITE", "ACK"}
	refused   = []string{"INVITE", "100 INVITE", "486 INVITE", "ACK"}
)

// say is one message of the call as an agent reports it.
func (c talk) say(what string) hep.Packet {
	from, to := c.from, c.to
	src, dst := netip.MustParseAddrPort("192.0.2.10:5060"), netip.MustParseAddrPort("198.51.100.20:5070")
	what, reversed := strings.CutPrefix(what, "< ")
	if reversed {
		from, to = to, from
	}
	status, method, reply := strings.Cut(what, " ")
	start := "SIP/2.0 " + status + " Reason"
	if !reply {
		method, start = what, what+" sip:"+to+"@example.com SIP/2.0"
	}
	if reply != reversed {
		src, dst = dst, src
	}
	toTag := ";tag=t"
	if !reply && !reversed && (method == "INVITE" || method == "CANCEL") || status == "100" {
		toTag = ""
	}
	p := hep.Packet{
		Version: 3, Protocol: hep.ProtocolUDP, Type: hep.TypeSIP, CaptureID: 7,
		Src: src.Addr(), SrcPort: src.Port(), Dst: dst.Addr(), DstPort: dst.Port(),
		Payload: fmt.Appendf(nil, "%s\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s\r\nFrom: <sip:%s@example.com>;tag=f\r\nTo: <sip:%s@example.com>%s\r\n"+
			"Call-ID: %s\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n", start, src, c.id, from, to, toTag, c.id, method),
	}
	if err := p.SetTime(time.Now()); err != nil {
		panic(err) // until 2106 there is no such time
	}
	return p
}

// An edge is a tap with what has been sent to it.
type edge struct {
	*process
	*sender
	n int // messages sent
}

func startEdge(t *testing.T, nats, name string) *edge {
	t.Helper()
	addr := freeAddr(t)
	e := &edge{process: startTap(t, nats, name, addr, t.TempDir())}
	e.ready(t)
	e.sender = send(t, "udp", addr)
	return e
}

// hears is shown what is said in a call, and returns the messages.
func (e *edge) hears(c talk, parts ...[]string) (messages []string) {
	for _, what := range slices.Concat(parts...) {
		p := c.say(what)
		e.packet(&p)
		e.n++
		messages = append(messages, string(p.Payload))
	}
	return messages
}

// digested waits until the tap has decided about all that it was sent.
func (e *edge) digested(t *testing.T) {
	t.Helper()
	eventually(t, "the tap has had everything", func() bool { return e.metric(t, "siptrace_tap_events_received_total") == float64(e.n) })
}

// rules is how many rules count at the tap.
func (e *edge) rules(t *testing.T) float64 {
	t.Helper()
	return e.metric(t, "siptrace_tap_rules")
}

// A cord is a way to a server that can be cut.
type cord struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	apart bool
	ends  map[net.Conn]bool
}

func newCord(t *testing.T, to string) *cord {
	t.Helper()
	ln, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cord{ln: ln, to: to, ends: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.join(near) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		c.cut()
		wg.Wait()
	})
	return c
}

func (c *cord) url() string { return "nats://" + c.ln.Addr().String() }

// join passes on what either side says, until one of them ends or the cord is cut.
func (c *cord) join(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp4", c.to)
	if err != nil {
		return
	}
	defer far.Close()
	c.mu.Lock()
	if c.apart {
		c.mu.Unlock()
		return
	}
	c.ends[near], c.ends[far] = true, true
	c.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(far, near) // however it ends
		_ = far.Close()
	})
	_, _ = io.Copy(near, far)
	_ = near.Close()
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ends, near)
	delete(c.ends, far)
}

func (c *cord) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apart = true
	for end := range c.ends {
		_ = end.Close()
	}
}

func (c *cord) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apart = false
}

// stored are the messages in all tables made for traces, by table.
func (d *db) stored(t *testing.T) map[string][]string {
	t.Helper()
	rows, err := d.connect(t).Query(t.Context(), `SELECT relname::text FROM pg_class
		WHERE relkind IN ('r', 'p') AND NOT relispartition AND relname LIKE 'sip\_trace%'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]string)
	for _, table := range tables {
		rows, err := d.connect(t).Query(t.Context(), "SELECT msg FROM "+pgx.Identifier{table}.Sanitize())
		if err != nil {
			t.Fatal(err)
		}
		messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			t.Fatal(err)
		}
		all[table] = texts(messages)
	}
	return all
}

func texts(messages [][]byte) []string {
	all := []string{}
	for _, m := range messages {
		all = append(all, string(m))
	}
	return all
}

// copied are the messages that have come to r.
func (r *relay) copied() []string {
	all := []string{}
	for _, d := range r.recorded() {
		all = append(all, string(d.body))
	}
	return all
}

// exactly fails the test unless got are the wanted messages, each as often.
func exactly(t *testing.T, where string, got, want []string) {
	t.Helper()
	asMessages := func(list []string) (all []message) {
		for _, m := range list {
			all = append(all, message{payload: m})
		}
		return all
	}
	same(t, where, asMessages(got), asMessages(want))
}

// rejected is how many events the workers have given up on.
func rejected(t *testing.T, nats *natsServer) uint64 {
	t.Helper()
	s, err := nats.stream(t).Stream(t.Context(), bus.RejectsStreamName)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// While tracing is off for all, one command traces one user on three taps, for
// a while: her calls are in their table and at their destination, whole, and
// nothing else is anywhere. Behind its end nothing comes any more, not even by
// a tap that could not be told. SIPTRACE_TEST_RULE_SECONDS is how long the
// while is.
func TestRule_tracesOneCallerForAWhileAndNothingElse(t *testing.T) {
	lasts := time.Duration(setting("SIPTRACE_TEST_RULE_SECONDS", 25)) * time.Second
	d, nats := database(t), startNATS(t)
	aside, others := newRelay(t, ""), newRelay(t, "")
	writer := program(t, "db-writer", "--nats", nats.url(), "--store", d.url, "--create-tables", "--http", loopback+":0").ready(t)
	forwarder := program(t, "hep-forwarder", "--nats", nats.url(), "--to", "hep+udp://"+others.addr(), "--allow", loopback, "--http", loopback+":0").ready(t)
	switchTrace(t, nats.url(), "off", "Disabled")
	rope := newCord(t, nats.addr)
	edges := []*edge{startEdge(t, nats.url(), "edge1"), startEdge(t, nats.url(), "edge2"), startEdge(t, rope.url(), "edge3")}
	far := edges[2]
	for _, e := range edges {
		if state := e.logged(t, "trace state"); state["on"] != false {
			t.Fatalf("a tap starts with %v, want tracing off", state)
		}
	}
	early := talk{"early", "alice", "dave"}
	edges[0].hears(early, begun)
	edges[0].digested(t)

	must(t, "ctl", "rule", "add", "--nats", nats.url(), "--caller", "bob", "--table", "sip_trace_bob", "--no-duplicate")
	added := run(t, "", "ctl", "rule", "add", "--nats", nats.url(), "--caller", "alice", "--for", lasts.String(),
		"--table", "sip_trace_alice", "--to", "sip:"+aside.addr(), "--why", "ticket 4711")
	if added.code != 0 || added.out != "caller-alice\n" || !strings.Contains(added.errors, "; 3/3 of the taps have it") {
		t.Fatalf("ctl rule add: exit code %d, %q, %q", added.code, added.out, added.errors)
	}
	over := time.Now().Add(lasts) // and a little longer

	var alice, bob []string
	edges[0].hears(early, hungUpOn) // it was up before the rule was there
	for i, e := range edges {
		name := func(kind string) string { return fmt.Sprintf("%s-%d", kind, i) }
		e.hears(talk{name("to-alice"), "carol", "alice"}, begun)
		alice = append(alice, e.hears(talk{name("answered"), "alice", "dave"}, begun, hungUpOn)...)
		e.hears(talk{name("to-alice"), "carol", "alice"}, hungUpOn)
		alice = append(alice, e.hears(talk{name("cancelled"), "alice", "bob"}, cancelled)...)
		e.hears(talk{name("namesakes"), "alice2", "malice"}, begun, hungUp)
		alice = append(alice, e.hears(talk{name("refused"), "alice", "carol"}, refused)...)
		e.hears(talk{name("cancels"), "Alice", "dave"}, cancelled)
		alice = append(alice, e.hears(talk{name("long"), "alice", "dave"}, begun)...)
	}
	eventually(t, "her calls are there", func() bool {
		return len(d.stored(t)["sip_trace_alice"]) >= len(alice) && len(aside.copied()) >= len(alice)
	})
	rope.cut()
	far.waitsFor(t, "nats: ")
	alice = append(alice, far.hears(talk{"held", "alice", "dave"}, begun, hungUp)...)
	for _, e := range edges {
		e.digested(t)
		if e.rules(t) != 2 {
			t.Fatalf("the rule has ended before the test was ready with it: %v are too short for this machine", lasts)
		}
	}

	time.Sleep(time.Until(over)) // a wall clock decides here
	for i, e := range edges {
		e.hears(talk{fmt.Sprintf("long-%d", i), "alice", "dave"}, hungUp)
		e.hears(talk{fmt.Sprintf("late-%d", i), "alice", "dave"}, begun, hungUp)
		bob = append(bob, e.hears(talk{fmt.Sprintf("witness-%d", i), "bob", "alice"}, begun, hungUpOn)...)
		e.digested(t)
		if n := e.rules(t); n != 1 {
			t.Errorf("%v rules count, want only the one of the witness", n)
		}
	}
	rope.mend()
	far.ready(t)
	eventually(t, "the witnesses are there", func() bool { return len(d.stored(t)["sip_trace_bob"]) >= len(bob) })
	eventually(t, "what the third tap held is there", func() bool {
		return len(d.stored(t)["sip_trace_alice"]) >= len(alice) && len(aside.copied()) >= len(alice)
	})

	tables := d.stored(t)
	exactly(t, "sip_trace_alice", tables["sip_trace_alice"], alice)
	exactly(t, "sip_trace_bob", tables["sip_trace_bob"], bob)
	exactly(t, "her destination", aside.copied(), alice)
	delete(tables, "sip_trace_alice")
	delete(tables, "sip_trace_bob")
	for table, messages := range tables {
		exactly(t, table, messages, nil)
	}
	exactly(t, "the destination of everybody", others.copied(), nil)
	if n := len(streamed(t, nats)); n != len(alice)+len(bob) {
		t.Errorf("%d events in the stream, want %d", n, len(alice)+len(bob))
	}
	if n := rejected(t, nats); n > 0 {
		t.Errorf("%d rejects, want none", n)
	}
	if list := must(t, "ctl", "rule", "list", "--nats", nats.url()); !containsAll(list, []string{"expired", "ticket 4711"}) {
		t.Errorf("ctl rule list does not show that the rule has expired:\n%s", list)
	}
	for _, p := range []*process{edges[0].process, edges[1].process, far.process, forwarder, writer} {
		p.stop(t)
	}
}
