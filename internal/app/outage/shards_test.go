package outage_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// TestShards_endToEnd sends HEP to a tap that does not know how many shards
// there are, and looks into the database and the streams.
func TestShards_endToEnd(t *testing.T) {
	const shards, all = 4, 12_000
	addr, in := freeAddr(t), freeAddr(t)
	startServer(t, t.TempDir(), addr, bus.StreamConfig{Shards: shards})
	file := filepath.Join(t.TempDir(), "siptrace.db")
	log := testLog(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() {
		ended <- app.Run(ctx, log, app.Base(log),
			app.WriterModule(app.WriterFlags{
				Store: "sqlite:" + file, Table: "sip_trace", Durable: "db-writer", Batch: 1000,
				Linger: app.Duration(20 * time.Millisecond), Connections: 1, AutoSchema: true, Partition: "day", Durability: "full",
			}, bus.Options{URL: "nats://" + addr, Name: "db-writer"}, bus.StreamConfig{}),
			app.TapModule(app.TapFlags{
				In: []string{"hep+tcp://" + in}, Mode: "all", AgentName: "edge", Buffer: 64 << 20, Compress: bus.CompressS2, Data: t.TempDir(),
			}, bus.Options{URL: "nats://" + addr, Name: "tap"}, bus.StreamConfig{}),
		)
	}()
	defer func() {
		stop()
		if code := <-ended; code != app.ExitDone {
			t.Errorf("ended with %d", code)
		}
	}()
	sendHEP(t, in, all)

	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var rows, events, calls int
	eventually(t, "every event is a row", func() bool {
		row := db.QueryRow("SELECT count(*), count(DISTINCT event_id), count(DISTINCT callid) FROM sip_trace")
		return row.Scan(&rows, &events, &calls) == nil && rows >= all
	})
	if rows != all || events != all || calls != all/callLength {
		t.Errorf("%d rows of %d events in %d calls, want %d in %d", rows, events, calls, all, all/callLength)
	}

	c := connect(t, "nats://"+addr)
	seen := 0
	shardOf := make(map[string]int)
	for shard := range shards {
		before := seen
		tail := bus.NewTail(c, bus.TailOptions{All: true, Stop: true, Subject: fmt.Sprintf("siptrace.v1.events.%d.>", shard)}, log)
		err := tail.Run(t.Context(), trace.SinkFunc(func(_ context.Context, events []trace.Event) error {
			for i := range events {
				seen++
				call := fmt.Sprint(serialOf(&events[i]) / callLength)
				if other, ok := shardOf[call]; ok && other != shard {
					t.Errorf("call %s is in shards %d and %d", call, other, shard)
				}
				shardOf[call] = shard
			}
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		if seen-before < all/shards/2 {
			t.Errorf("shard %d has %d of %d events", shard, seen-before, all)
		}
	}
	if seen != all {
		t.Errorf("%d events in the streams, want %d", seen, all)
	}
}

// sendHEP sends n messages as HEP over TCP.
func sendHEP(t *testing.T, addr string, n int) {
	t.Helper()
	var (
		conn net.Conn
		err  error
	)
	eventually(t, "the tap listens", func() bool {
		conn, err = net.Dial("tcp", addr)
		return err == nil
	})
	defer conn.Close()
	var out []byte
	for _, e := range makeEvents(0, n) {
		var p hep.Packet
		if err := trace.ToHEP(&p, &e); err != nil {
			t.Fatal(err)
		}
		if out, err = p.Append(out); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write(out); err != nil {
		t.Fatal(err)
	}
}
