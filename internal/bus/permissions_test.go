package bus_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/testcert"
)

// forwarderDurable is the consumer of the destination in the example.
const forwarderDurable = "fwd-hep-10_0_0_5-9060-5b483473"

// sharded makes of a configuration one for several streams, as administrators
// are told to.
func sharded(t *testing.T, file string, shards int) string {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	script := exec.CommandContext(t.Context(), "sh", filepath.Join(filepath.Dir(file), "shards.sh"), strconv.Itoa(shards))
	script.Stdin = in
	out, err := script.Output()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "nats-server.conf")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// exampleServer runs a server from the configuration that administrators are
// given to copy, made for so many streams, but for its port and its store. It
// returns a way to connect: as a user of the configuration, with a program's
// inbox.
func exampleServer(t *testing.T, shards int) (as func(user, program string) *bus.Conn, raw func(user, inbox string) *nats.Conn) {
	t.Helper()
	own := testcert.New(t)
	t.Setenv("SIPTRACE_NATS_CERT", own.Cert)
	t.Setenv("SIPTRACE_NATS_KEY", own.Key)
	for _, user := range []string{"ADMIN", "CTL", "REPLAY", "TAP", "DB_WRITER", "FORWARDER", "SYS"} {
		t.Setenv("SIPTRACE_PASSWORD_"+user, "pw-"+user)
	}
	file := filepath.Join("..", "..", "deploy", "nats", "nats-server.conf")
	if shards > 1 {
		file = sharded(t, file, shards)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port, opts.StoreDir, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true, true
	ns, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(quick) {
		t.Fatal("server not ready")
	}
	url := func(user string) string {
		password := "pw-" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(user, "hep-"), "-", "_"))
		return "tls://" + user + ":" + password + "@" + ns.Addr().String()
	}
	as = func(user, program string) *bus.Conn {
		c, err := bus.Connect(bus.Options{URL: url(user), Name: program, CA: own.Cert}, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		eventually(t, user+" is let in", func() bool { return c.Check(t.Context()) == nil })
		return c
	}
	raw = func(user, inbox string) *nats.Conn {
		nc, err := nats.Connect(url(user), nats.RootCAs(own.Cert), nats.CustomInboxPrefix(inbox), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	return as, raw
}

// durables makes the consumers of the workers, as ctl stream apply does.
func durables(t *testing.T, admin *bus.Conn, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := newConsumer(t, admin, bus.ConsumerOptions{Durable: name}).Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExampleServer_permissionsAreEnoughForEachProgram(t *testing.T) {
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d streams", shards), func(t *testing.T) { enoughForEachProgram(t, shards) })
	}
}

func enoughForEachProgram(t *testing.T, shards int) {
	as, _ := exampleServer(t, shards)
	admin := as("admin", "ctl")
	plans, err := admin.PlanStreams(t.Context(), bus.StreamChange{Shards: shards})
	if err == nil {
		err = admin.ApplyStreams(t.Context(), plans)
	}
	if err != nil {
		t.Fatal(err)
	}
	durables(t, admin, "db-writer", forwarderDurable)

	tap, db, fwd, ctl := as("tap", "tap"), as("db-writer", "db-writer"), as("hep-forwarder", "hep-forwarder"), as("ctl", "ctl")
	var stored1, forwarded keeper
	reg, _ := consume(t, db, bus.ConsumerOptions{Durable: "db-writer", Poll: 20 * time.Millisecond}, &stored1)
	consume(t, fwd, bus.ConsumerOptions{Durable: forwarderDurable}, &forwarded)
	spread(t, tap, 0, 100)
	wantShards(t, ctl, shards)
	eventually(t, "the events arrive at the db-writer", func() bool { return stored1.distinct() == 100 })
	eventually(t, "the events arrive at the forwarder", func() bool { return forwarded.distinct() == 100 })
	eventually(t, "the acknowledgements count", func() bool {
		all, err := ctl.Consumers(t.Context())
		return err == nil && len(all) == 2 && all[0].AckPending+all[1].AckPending == 0 && all[0].Pending+all[1].Pending == 0 && !all[0].LastActive.IsZero()
	})
	eventually(t, "the lag is seen", func() bool { return metric(t, reg, "siptrace_consumer_unacked_frames") == 0 })
	for worker, c := range map[string]*bus.Conn{"db-writer": db, forwarderDurable: fwd} {
		if err := bus.NewRejects(c).Put(t.Context(), bus.Reject{Worker: worker, Reason: "test", Event: &makeEvents(0, 1)[0]}); err != nil {
			t.Errorf("%s cannot keep a reject: %v", worker, err)
		}
	}

	w, _ := watch(t, tap, bus.State{On: true})
	st := set(t, ctl, bus.State{Who: "alice"})
	eventually(t, "the tap hears the flip", func() bool { got, _, _ := w.last(); return got.Revision == st.Revision })
	if h, err := bus.NewStateStore(ctl).History(t.Context()); err != nil || len(h) != 1 {
		t.Errorf("History = %v, %v, want one state", h, err)
	}
	if _, err := bus.NewReplayPositions(ctl).Put(t.Context(), bus.ReplayPosition{Name: "again", Owner: "me"}); err != nil {
		t.Errorf("ctl cannot keep how far a replay is: %v", err)
	}
	node, err := bus.ServeNode(tap, bus.NodeInfo{Service: "tap", Name: "edge"}, func() bus.NodeStatus { return bus.NodeStatus{} })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Stop() }()
	for who, c := range map[string]*bus.Conn{"ctl": ctl, "the forwarder": fwd, "another tap": as("tap", "tap")} {
		eventually(t, who+" sees the tap", func() bool {
			nodes, err := c.Nodes(t.Context(), 50*time.Millisecond)
			return err == nil && len(nodes) == 1
		})
	}
	for who, c := range map[string]*bus.Conn{"tap": tap, "forwarder": fwd, "db-writer": db} {
		if _, err := c.Fleet(t.Context()); err != nil {
			t.Errorf("%s cannot learn which fleet it is of: %v", who, err)
		}
		if n, err := c.Shards(t.Context()); err != nil || n != shards {
			t.Errorf("%s sees %d shards, %v, want %d", who, n, err, shards)
		}
	}
	wantOnce(t, stored(t, ctl), 100)
	if err := bus.NewRejects(admin).Delete(t.Context(), 1); err != nil {
		t.Errorf("admin cannot remove a reject: %v", err)
	}
}

// spread publishes events over the streams there are, as a tap does.
func spread(t *testing.T, c *bus.Conn, first, n int) {
	t.Helper()
	p, _, stop := publisher(t, c, bus.PublisherOptions{FrameEvents: 10, AwaitShards: true})
	running(t, func(ctx context.Context) error { return c.WatchShards(ctx, 1, p.SetShards) })
	if err := p.Write(t.Context(), makeEvents(first, n)); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestExampleServer_permissionsAreNoMoreThanEnough(t *testing.T) {
	for stream, shards := range map[string]int{bus.StreamName: 1, bus.StreamName + "_2": 4} {
		t.Run(fmt.Sprintf("%d streams", shards), func(t *testing.T) { noMoreThanEnough(t, stream, shards) })
	}
}

// noMoreThanEnough tries it with one of the streams.
func noMoreThanEnough(t *testing.T, stream string, shards int) {
	as, raw := exampleServer(t, shards)
	admin := as("admin", "ctl")
	ensure(t, admin, bus.StreamConfig{Shards: shards})
	durables(t, admin, "db-writer", forwarderDurable)
	spread(t, admin, 0, 10)

	const wait = 200 * time.Millisecond // what is denied is never answered
	get := func(stream string) string { return "$JS.API.DIRECT.GET." + stream }
	for _, tt := range []struct{ user, inbox, subject, payload, what string }{
		{"tap", "_INBOX_tap", get(stream), `{"seq":1}`, "read the stream"},
		{"tap", "_INBOX_tap", "$JS.API.CONSUMER.CREATE." + stream, `{}`, "read the stream through a consumer"},
		{"tap", "_INBOX_tap", "$JS.API.CONSUMER.MSG.NEXT." + stream + ".db-writer", ``, "take a worker's events"},
		{"tap", "_INBOX_tap", "$KV.siptrace.state", `{}`, "switch tracing"},
		{"tap", "_INBOX_tap", "$KV.siptrace.rule.x", `{}`, "make a rule"},
		{"tap", "_INBOX_tap", "siptrace.v1.rejects.db-writer", `x`, "write rejects"},
		{"tap", "_INBOX_tap", "$JS.API.STREAM.PURGE." + stream, ``, "purge the stream"},
		{"db-writer", "_INBOX_db-writer", "$KV.siptrace.state", `{}`, "switch tracing"},
		{"db-writer", "_INBOX_db-writer", "$JS.API.DIRECT.GET.KV_siptrace.$KV.siptrace.rule.x", ``, "read rules"},
		{"db-writer", "_INBOX_db-writer", bus.EventsSubject + ".0.x", `x`, "publish an event"},
		{"db-writer", "_INBOX_db-writer", "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + forwarderDurable, ``, "take the forwarder's events"},
		{"db-writer", "_INBOX_db-writer", "$JS.API.CONSUMER.DELETE." + stream + ".db-writer", ``, "delete a consumer"},
		{"db-writer", "_INBOX_db-writer", "siptrace.v1.rejects." + forwarderDurable, `x`, "write another's rejects"},
		{"hep-forwarder", "_INBOX_hep-forwarder", "$KV.siptrace.state", `{}`, "switch tracing"},
		{"hep-forwarder", "_INBOX_hep-forwarder", bus.EventsSubject + ".0.x", `x`, "publish an event"},
		{"hep-forwarder", "_INBOX_hep-forwarder", "$JS.API.CONSUMER.MSG.NEXT." + stream + ".db-writer", ``, "take the db-writer's events"},
		{"ctl", "_INBOX_ctl", bus.EventsSubject + ".0.x", `x`, "publish an event"},
		{"ctl", "_INBOX_ctl", "$JS.API.STREAM.PURGE." + stream, ``, "purge the stream"},
		{"ctl", "_INBOX_ctl", "$JS.API.STREAM.UPDATE." + stream, `{}`, "change the stream"},
		{"ctl", "_INBOX_ctl", "$JS.API.STREAM.DELETE." + stream, ``, "delete the stream"},
		{"replay", "_INBOX_ctl", bus.EventsSubject + ".0.x", `x`, "publish an event"},
		{"replay", "_INBOX_ctl", "$KV.siptrace.state", `{}`, "switch tracing"},
		{"replay", "_INBOX_ctl", "$KV.siptrace.rule.x", `{}`, "make a rule"},
		{"replay", "_INBOX_ctl", "$JS.API.DIRECT.GET.KV_siptrace.$KV.siptrace.rule.x", ``, "read rules"},
		{"replay", "_INBOX_ctl", "$JS.API.CONSUMER.MSG.NEXT." + stream + ".db-writer", ``, "take the db-writer's events"},
		{"replay", "_INBOX_ctl", "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + forwarderDurable, ``, "take the forwarder's events"},
		{"replay", "_INBOX_ctl", "$JS.API.CONSUMER.DELETE." + stream + ".db-writer", ``, "delete a worker's consumer"},
		{"replay", "_INBOX_ctl", "$JS.API.CONSUMER.CREATE." + stream + ".db-writer", `{}`, "change a worker's consumer"},
		{"replay", "_INBOX_ctl", "$JS.API.CONSUMER.CREATE." + stream + ".db-writer.siptrace.v1.events.>", `{}`, "change its filter"},
		{"replay", "_INBOX_ctl", "$JS.API.CONSUMER.DURABLE.CREATE." + stream + ".db-writer", `{}`, "make a worker's consumer"},
		{"replay", "_INBOX_ctl", "$JS.ACK." + stream + ".db-writer.1.1.1.1.0", ``, "acknowledge for a worker"},
		{"replay", "_INBOX_ctl", "$JS.API.STREAM.PURGE." + stream, ``, "purge the stream"},
		{"replay", "_INBOX_ctl", "$JS.API.STREAM.MSG.DELETE." + bus.RejectsStreamName, `{"seq":1}`, "remove a reject"},
	} {
		t.Run(tt.user+" may not "+tt.what, func(t *testing.T) {
			t.Parallel()
			msg, err := raw(tt.user, tt.inbox).Request(tt.subject, []byte(tt.payload), wait)
			if err == nil {
				t.Errorf("answered: %q %v", msg.Data, msg.Header)
			}
		})
	}
	t.Run("nobody listens to another's replies", func(t *testing.T) {
		nc := raw("tap", "_INBOX_tap")
		sub, err := nc.SubscribeSync("_INBOX_ctl.>")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the subscription is refused", func() bool { return !sub.IsValid() || nc.LastError() != nil })
	})

	// The same, as the programs would try it.
	tap, ctl := as("tap", "tap"), as("ctl", "ctl")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := bus.NewStateStore(tap).Set(ctx, bus.State{On: true}); err == nil {
		t.Error("a tap switched tracing")
	}
	p, err := bus.NewPublisher(ctl, bus.PublisherOptions{Agent: "ctl", FlushTimeout: 1}, prometheus.NewRegistry(), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	running(t, p.Run)
	if err := p.Write(ctx, makeEvents(200, 1)); err == nil {
		t.Error("ctl published an event")
	}
	st, err := admin.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantOnce(t, stored(t, ctl), 10)
	if st.Frames == 0 || st.Frames > 10 {
		t.Errorf("%d frames in the stream, want those of the 10 events alone", st.Frames)
	}
}
