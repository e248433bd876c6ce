package parity

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/internal/testport"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// proxy are the sockets of the Kamailio that was recorded. It sends from the
// second where the call came over TCP.
var proxy = []string{"127.0.0.1:15060", "127.0.0.1:15061"}

// patience is the time a test waits for what should happen at once.
const patience = time.Minute

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// A bed is a bus with a tap, a db-writer on SQLite and a forwarder.
type bed struct {
	hep, sip string // where the tap listens
	database string // the address of the store
}

// start runs one until the test ends. The rules are there before the tap.
func start(t *testing.T, rules []trace.Rule, change func(*app.TapFlags), to ...string) *bed {
	t.Helper()
	server, err := natsd.Start(natsd.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: quiet(), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	conn := prepare(t, server.ClientURL(), rules)

	b := &bed{hep: freeAddr(t), sip: freeAddr(t), database: "sqlite:" + filepath.Join(t.TempDir(), "trace.db")}
	tap := app.TapFlags{
		In: []string{"hep+udp://" + b.hep, "siptrace+udp://" + b.sip}, Mode: "all", AgentName: "edge",
		Buffer: 8 << 20, Compress: bus.CompressS2, Data: "off",
	}
	tap.LocalNet = proxy
	if change != nil {
		change(&tap)
	}
	writer := app.WriterFlags{
		Store: b.database, Table: store.DefaultTable, Durable: "db-writer", Batch: 5000, Linger: app.Duration(10 * time.Millisecond),
		Connections: 1, AutoSchema: true, CreateTables: true, Partition: "day", Durability: "full",
	}
	named := func(name string) bus.Options { return bus.Options{URL: server.ClientURL(), Name: name} }
	services := []fx.Option{
		app.TapModule(tap, named("tap-edge"), bus.StreamConfig{}),
		app.WriterModule(writer, named("db-writer"), bus.StreamConfig{}),
	}
	if len(to) > 0 {
		forwarder := app.ForwarderFlags{To: to, Linger: app.Duration(time.Millisecond), Start: "all"}
		services = append(services, app.ForwarderModule(forwarder, named("hep-forwarder"), bus.StreamConfig{}))
	}
	for _, s := range services {
		background(t, func(ctx context.Context) {
			if code := app.Run(ctx, quiet(), app.Base(quiet()), s); code != app.ExitDone {
				t.Errorf("a service ended with code %d", code)
			}
		})
	}
	eventually(t, "the tap is there, with its rules", func() bool { return ready(t, conn, len(rules)) })
	return b
}

// prepare makes the streams and stores the rules.
func prepare(t *testing.T, url string, rules []trace.Rule) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(bus.Options{URL: url, Name: "test"}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	eventually(t, "the streams are there", func() bool {
		_, err := conn.EnsureStreams(t.Context(), bus.StreamConfig{})
		return err == nil
	})
	for _, r := range rules {
		if _, err := bus.NewRuleStore(conn).Put(t.Context(), r, 0); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// ready reports whether the tap answers and has so many rules.
func ready(t *testing.T, conn *bus.Conn, rules int) bool {
	t.Helper()
	nodes, err := conn.Nodes(t.Context(), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(nodes, func(n bus.NodeStatus) bool { return n.Service == "tap" && len(n.Rules) == rules })
}

// background runs f until the test ends.
func background(t *testing.T, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// freeAddr is an address of the loopback that nobody uses.
func freeAddr(t *testing.T) string { return testport.Addr(t, 18_500, 500) }

// send sends datagrams.
func send(t *testing.T, to string, datagrams [][]byte) {
	t.Helper()
	conn, err := net.Dial("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, b := range datagrams {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

// rows waits until there are n rows in tables, and returns them.
func (b *bed) rows(t *testing.T, n int, tables ...string) []row {
	t.Helper()
	var all []row
	var err error
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if all, err = b.read(t, tables); err == nil && len(all) >= n {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("%d rows after %v, want %d; %v", len(all), patience, n, err)
		}
	}
}

// read returns the rows as of now; an error while the tables are missing.
func (b *bed) read(t *testing.T, tables []string) ([]row, error) {
	s, err := open.Reader(b.database, store.Options{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return stored(t, s, tables...)
}

// A collector keeps every datagram that comes, in order.
type collector struct {
	addr string
	mu   sync.Mutex
	got  [][]byte
}

func collect(t *testing.T) *collector {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	c := &collector{addr: conn.LocalAddr().String()}
	background(t, func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		buf := make([]byte, 65535)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.got = append(c.got, slices.Clone(buf[:n]))
			c.mu.Unlock()
		}
	})
	return c
}

// take waits until there are n datagrams and returns them.
func (c *collector) take(t *testing.T, n int) [][]byte {
	t.Helper()
	var all [][]byte
	eventually(t, "the collector has all", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		all = slices.Clone(c.got)
		return len(all) >= n
	})
	if len(all) != n {
		t.Errorf("%d datagrams came, want %d", len(all), n)
	}
	return all
}
