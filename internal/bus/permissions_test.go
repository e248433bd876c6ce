package bus_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// The permissions that each service needs, and no more. What is allowed here
// is what an administrator may copy.
func permissions() map[string]*server.Permissions {
	responses := &server.ResponsePermission{MaxMsgs: server.DEFAULT_ALLOW_RESPONSE_MAX_MSGS, Expires: time.Minute}
	node := []string{"$SRV.>", "siptrace.v1.nodes.>"}
	return map[string]*server.Permissions{
		"init": { // makes streams and durables, once
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_init.>"}},
		},
		"tap": {
			Publish: &server.SubjectPermission{Allow: []string{
				"siptrace.v1.events.>",
				"$JS.API.STREAM.INFO.KV_siptrace",
				"$JS.API.DIRECT.GET.KV_siptrace.>",
			}},
			Subscribe: &server.SubjectPermission{Allow: append([]string{"_INBOX_tap.>", "siptrace.v1.ctl.>"}, node...)},
			Response:  responses,
		},
		"db-writer": {
			Publish: &server.SubjectPermission{Allow: []string{
				"siptrace.v1.rejects.db-writer",
				"$JS.API.STREAM.INFO.SIPTRACE",
				"$JS.API.DIRECT.GET.SIPTRACE",
				"$JS.API.CONSUMER.INFO.SIPTRACE.db-writer",
				"$JS.API.CONSUMER.MSG.NEXT.SIPTRACE.db-writer",
				"$JS.ACK.>",
			}},
			Subscribe: &server.SubjectPermission{Allow: append([]string{"_INBOX_db-writer.>"}, node...)},
			Response:  responses,
		},
		"ctl": {
			Publish: &server.SubjectPermission{Allow: []string{
				"$KV.siptrace.>",
				"siptrace.v1.nodes.>",
				"$JS.API.INFO",
				"$JS.API.STREAM.INFO.>",
				"$JS.API.DIRECT.GET.>",
				"$JS.API.CONSUMER.LIST.>",
				"$JS.API.CONSUMER.INFO.>",
				"$JS.API.CONSUMER.CREATE.>", // history and tail read through consumers that go away again
				"$JS.API.CONSUMER.DELETE.>",
				"$JS.API.CONSUMER.MSG.NEXT.>",
				"$JS.FC.>",
			}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_ctl.>"}},
		},
	}
}

func TestPermissions_areEnoughForEachService(t *testing.T) {
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	for name, p := range permissions() {
		opts.Users = append(opts.Users, &server.User{Username: name, Password: "pw", Permissions: p})
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(quick) {
		t.Fatal("server not ready")
	}
	as := func(name string) *bus.Conn {
		return connect(t, strings.Replace(ns.ClientURL(), "nats://", "nats://"+name+":pw@", 1), name)
	}
	boot := as("init")
	ensure(t, boot, bus.StreamConfig{})
	if err := newConsumer(t, boot, bus.ConsumerOptions{Durable: "db-writer"}).Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}

	tap, db, ctl := as("tap"), as("db-writer"), as("ctl")
	var k keeper
	reg, _ := consume(t, db, bus.ConsumerOptions{Durable: "db-writer", Poll: 20 * time.Millisecond}, &k)
	publish(t, tap, 0, 100)
	eventually(t, "the events arrive", func() bool { return k.distinct() == 100 })
	eventually(t, "the lag is seen", func() bool { return metric(t, reg, "siptrace_consumer_unacked_frames") == 0 })
	if err := bus.NewRejects(db).Put(t.Context(), bus.Reject{Worker: "db-writer", Reason: "test", Event: &makeEvents(0, 1)[0]}); err != nil {
		t.Error(err)
	}

	w, _ := watch(t, tap, bus.State{On: true})
	st := set(t, ctl, bus.State{Who: "alice"})
	eventually(t, "the tap hears the flip", func() bool { got, _, _ := w.last(); return got.Revision == st.Revision })
	if h, err := bus.NewStateStore(ctl).History(t.Context()); err != nil || len(h) != 1 {
		t.Errorf("History = %v, %v, want one state", h, err)
	}
	node, err := bus.ServeNode(tap, bus.NodeInfo{Service: "tap", Name: "edge"}, func() bus.NodeStatus { return bus.NodeStatus{} })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Stop() }()
	eventually(t, "ctl sees the tap", func() bool {
		nodes, err := ctl.Nodes(t.Context(), 50*time.Millisecond)
		return err == nil && len(nodes) == 1
	})
	if all, err := ctl.Consumers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("Consumers = %v, %v, want one", all, err)
	}
	wantOnce(t, stored(t, ctl), 100)

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := bus.NewStateStore(tap).Set(ctx, bus.State{On: true, Revision: st.Revision}); err == nil {
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
}
