package outage_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/spool"
)

func TestTap_natsAwayUnderLoadLosesNothing(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	server := startServer(t, dir, addr, bus.StreamConfig{})
	p := startTap(t, addr, t.TempDir(), tapOptions{PublisherOptions: bus.PublisherOptions{BufferBytes: 4 << 20, DrainRate: 15_000}})

	const before, away, live, all = 5_000, 45_000, 5_000, 55_000
	p.offerAll(t, 0, before/2)
	go server.Shutdown() // in the middle of it
	p.offerAll(t, before/2, before+away)
	eventually(t, "what is unacknowledged is on disk", func() bool {
		return p.metric(t, "spooled_events_total")+p.metric(t, "published_events_total") >= before+away && p.metric(t, "buffer_bytes") == 0
	})
	server.Shutdown()
	startServer(t, dir, addr, bus.StreamConfig{})
	eventually(t, "the spool begins to drain", func() bool { return p.metric(t, "spool_drained_events_total") > 0 })
	p.offerAll(t, before+away, all)
	eventually(t, "everything is in the stream", func() bool { return p.metric(t, "published_events_total") >= all })
	eventually(t, "nothing is left on disk", func() bool { return p.metric(t, "spool_bytes") == 0 })

	serials := stored(t, addr)
	wantOnce(t, serials, 0, all)
	lastLive, lastDrained := 0, 0
	drained := serials[:0:0]
	for at, n := range serials {
		if n >= before+away {
			lastLive = at
		} else {
			lastDrained = at
			drained = append(drained, n)
		}
	}
	if lastLive > lastDrained {
		t.Errorf("live events waited for the spool: the last one is at %d, the last from disk at %d", lastLive, lastDrained)
	}
	if tail := drained[before:]; !slices.IsSorted(tail) {
		t.Error("what came from disk is not in order")
	}
	if got, want := p.metric(t, "spool_drained_events_total"), p.metric(t, "spooled_events_total"); got != want {
		t.Errorf("%d events drained of %d spooled", got, want)
	}
}

func TestTap_aStreamThatRefusesIsWaitedForOnDisk(t *testing.T) {
	addr := freeAddr(t)
	server := startServer(t, t.TempDir(), addr, bus.StreamConfig{})
	nc, err := nats.Connect(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	limit := func(bytes int64) {
		t.Helper()
		s, err := js.Stream(t.Context(), bus.StreamName)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.Discard, cfg.MaxBytes = jetstream.DiscardNew, bytes
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	limit(200 << 10)
	p := startTap(t, addr, t.TempDir(), tapOptions{PublisherOptions: bus.PublisherOptions{BufferBytes: 2 << 20}})
	const all = 20_000
	p.offerAll(t, 0, all)
	eventually(t, "what the stream refuses is on disk", func() bool {
		return p.metric(t, "spooled_events_total") > all/2 && p.metric(t, "buffer_bytes") < 512<<10
	})
	if err := p.Check(t.Context()); err == nil {
		t.Error("Check is nil while the stream is full")
	}
	limit(1 << 30)
	eventually(t, "everything is in the stream", func() bool {
		return p.metric(t, "published_events_total") >= all && p.metric(t, "spool_bytes") == 0
	})
	wantOnce(t, stored(t, addr), 0, all)
}

func TestTap_stoppedWhileNATSIsAwayLeavesNothingBehind(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	const each, runs = 3_000, 3
	for run := range runs {
		p := startTap(t, addr, dir, tapOptions{PublisherOptions: bus.PublisherOptions{SpoolSync: time.Hour}})
		p.offerAll(t, run*each, (run+1)*each)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		if got := p.metric(t, "spooled_events_total"); got != each {
			t.Errorf("%d events spooled, want %d", got, each)
		}
	}
	startServer(t, t.TempDir(), addr, bus.StreamConfig{})
	p := startTap(t, addr, dir, tapOptions{})
	eventually(t, "the spool is empty", func() bool { return p.metric(t, "spool_drained_events_total") == each*runs })
	serials := stored(t, addr)
	wantOnce(t, serials, 0, each*runs)
	if !slices.IsSorted(serials) {
		t.Error("not in the order of capture")
	}
}

func TestTap_stoppedWhileItDrainsSendsTheRestNextTime(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	const all = 20_000
	p := startTap(t, addr, dir, tapOptions{})
	p.offerAll(t, 0, all)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	startServer(t, t.TempDir(), addr, bus.StreamConfig{})
	p = startTap(t, addr, dir, tapOptions{PublisherOptions: bus.PublisherOptions{DrainRate: 5_000}})
	eventually(t, "some of it is in the stream", func() bool { return p.metric(t, "spool_drained_events_total") > 1000 })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if got := p.metric(t, "spool_drained_events_total"); got == all {
		t.Fatal("it was not interrupted")
	}
	p = startTap(t, addr, dir, tapOptions{})
	eventually(t, "the spool is empty", func() bool { return p.metric(t, "spool_bytes") == 0 })
	wantOnce(t, stored(t, addr), 0, all)
}

func TestTap_aFullSpoolDropsAsItIsTold(t *testing.T) {
	const offered = 60_000
	t.Run("the oldest", func(t *testing.T) {
		addr := freeAddr(t)
		p := startTap(t, addr, t.TempDir(), tapOptions{
			size: spool.MinBytes, dropOldest: true,
			PublisherOptions: bus.PublisherOptions{BufferBytes: 2 << 20, Compression: bus.CompressNone},
		})
		p.offerAll(t, 0, offered)
		eventually(t, "all is on disk, or was", func() bool { return p.metric(t, "spooled_events_total") == offered })
		lost := p.metric(t, "spool_dropped_events_total")
		startServer(t, t.TempDir(), addr, bus.StreamConfig{})
		eventually(t, "the spool is empty", func() bool { return p.metric(t, "spool_bytes") == 0 })
		if lost == 0 || lost == offered {
			t.Errorf("%d of %d events dropped", lost, offered)
		}
		wantOnce(t, stored(t, addr), lost, offered)
	})
	t.Run("the newest", func(t *testing.T) {
		addr := freeAddr(t)
		p := startTap(t, addr, t.TempDir(), tapOptions{
			size:             spool.MinBytes,
			PublisherOptions: bus.PublisherOptions{BufferBytes: 2 << 20, Compression: bus.CompressNone},
		})
		accepted := 0
		eventually(t, "nothing more is accepted", func() bool {
			n := p.Offer(makeEvents(accepted, 50))
			accepted += n
			return n == 0 && p.metric(t, "spool_failing") == 1
		})
		startServer(t, t.TempDir(), addr, bus.StreamConfig{})
		eventually(t, "all that was accepted is in the stream", func() bool { return p.metric(t, "published_events_total") == accepted })
		if got := p.metric(t, "spool_dropped_events_total"); got != 0 {
			t.Errorf("%d events dropped, want 0", got)
		}
		wantOnce(t, stored(t, addr), 0, accepted)
		if accepted < 4_000 {
			t.Errorf("only %d events accepted", accepted)
		}
	})
}
