package bus_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

func TestNodes_everyInstanceAnswers(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	ctl := connect(t, s.ClientURL(), "ctl")
	eventually(t, "connected", func() bool { return ctl.Check(t.Context()) == nil })
	if nodes, err := ctl.Nodes(t.Context(), 300*time.Millisecond); err != nil || len(nodes) != 0 {
		t.Fatalf("Nodes without any = %v, %v", nodes, err)
	}
	infos := []bus.NodeInfo{
		{Service: "tap", Name: "edge-2", Version: "1.2.3"},
		{Service: "tap", Name: "edge-1", Version: "(devel)"},
		{Service: "db-writer", Name: "db", Version: "v1.2.3-rc.1"},
	}
	var nodes []*bus.Node
	for i, info := range infos {
		c := connect(t, s.ClientURL(), info.Service)
		n, err := bus.ServeNode(c, info, func() bus.NodeStatus {
			return bus.NodeStatus{Revision: uint64(i), StateOn: true, Counters: map[string]uint64{"in": uint64(10 * i)}, Waiting: "for " + info.Name}
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		eventually(t, "connected", func() bool { return c.Check(t.Context()) == nil })
	}
	got, err := ctl.Nodes(t.Context(), 300*time.Millisecond)
	if err != nil || len(got) != 3 {
		t.Fatalf("Nodes = %v, %v, want 3", got, err)
	}
	for i, want := range []int{2, 1, 0} { // db-writer, tap edge-1, tap edge-2
		st, info := got[i], infos[want]
		if st.Service != info.Service || st.Name != info.Name || st.Version != info.Version || st.Waiting != "for "+info.Name {
			t.Errorf("node %d = %+v, want %+v", i, st, info)
		}
		if st.Revision != uint64(want) || !st.StateOn || st.Counters["in"] != uint64(10*want) {
			t.Errorf("node %d = %+v, want what its status function says", i, st)
		}
		if st.PID == 0 || st.Instance == "" || st.Started.IsZero() {
			t.Errorf("node %d does not say who it is: %+v", i, st)
		}
	}

	_, nc := jetStream(t, s)
	reply, err := nc.Request("$SRV.INFO.siptrace-db-writer", nil, quick) // as any tool of the API asks
	if err != nil {
		t.Fatal(err)
	}
	var info micro.Info
	if err := json.Unmarshal(reply.Data, &info); err != nil {
		t.Fatal(err)
	}
	if info.Version != "1.2.3-rc.1" || info.Metadata["node"] != "db" || len(info.Endpoints) != 1 {
		t.Errorf("the API tells %+v", info)
	}

	for _, n := range nodes {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "nobody answers any more", func() bool {
		nodes, err := ctl.Nodes(t.Context(), 50*time.Millisecond)
		return err == nil && len(nodes) == 0
	})
}

func TestNodes_endsWithItsContext(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := connect(t, s.ClientURL(), "ctl")
	n, err := bus.ServeNode(c, bus.NodeInfo{Service: "tap"}, func() bus.NodeStatus { return bus.NodeStatus{} })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Stop() }()
	eventually(t, "connected", func() bool { return c.Check(t.Context()) == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Nodes(ctx, time.Hour); err == nil {
		t.Error("no error when the context ends first")
	}
}

func TestNodes_servesAlsoAfterItsServerCame(t *testing.T) {
	addr := freeAddr(t)
	tap := connect(t, "nats://"+addr, "tap")
	n, err := bus.ServeNode(tap, bus.NodeInfo{Service: "tap", Name: "edge"}, func() bus.NodeStatus { return bus.NodeStatus{} })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Stop() }()
	startServer(t, t.TempDir(), addr)
	ctl := connect(t, "nats://"+addr, "ctl")
	eventually(t, "the tap answers", func() bool {
		nodes, err := ctl.Nodes(t.Context(), 50*time.Millisecond)
		return err == nil && len(nodes) == 1 && nodes[0].Name == "edge"
	})
}

func TestConsumers_tellLagAndWhatIsLeft(t *testing.T) {
	s, c := bed(t)
	js, _ := jetStream(t, s)
	stream, err := c.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stream.Frames != 0 || stream.MaxAge != bus.DefaultMaxAge || stream.Storage != "File" || stream.Replicas != 1 {
		t.Errorf("empty stream = %+v", stream)
	}
	var k keeper
	_, stop := consume(t, c, bus.ConsumerOptions{}, &k)
	publish(t, c, 0, 100)
	eventually(t, "the events arrive", func() bool { return k.distinct() == 100 })
	settled(t, js)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	publish(t, c, 100, 200)

	stream, err = c.StreamStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stream.Frames != 30 || stream.LastSeq != 30 || stream.FirstSeq != 1 || stream.LastTime.Before(stream.FirstTime) {
		t.Errorf("stream = %+v, want 30 frames", stream)
	}
	all, err := c.Consumers(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("Consumers = %+v, %v, want one", all, err)
	}
	got := all[0]
	if got.Name != "worker" || got.Pending != 20 || got.AckPending != 0 || got.AckFloor != 10 || got.Delivered != 10 {
		t.Errorf("consumer = %+v, want 20 pending behind 10", got)
	}
	if got.OldestUnread <= 0 || got.OldestUnread > quick {
		t.Errorf("oldest unread %v", got.OldestUnread)
	}
	if got.SpaceLeft <= 0 || got.SpaceLeft >= stream.MaxBytes {
		t.Errorf("space left %d of %d, want less than all", got.SpaceLeft, stream.MaxBytes)
	}
	if got.TimeLeft <= 0 || got.TimeLeft > bus.DefaultMaxAge {
		t.Errorf("time left %v, want less than %v", got.TimeLeft, bus.DefaultMaxAge)
	}
}
