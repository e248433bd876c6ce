package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/seed-452fa805/siptrace/internal/bus/natsd"
	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/internal/testport"
)

// loopback is the only host these tests know.
const loopback = "127.0.0.1"

// freeAddr is an address of loopback that nobody uses, for UDP and TCP.
func freeAddr(t *testing.T) string { return testport.Addr(t, 20_000, 12_000) }

// natsServer is a NATS server that can be away for a while.
type natsServer struct {
	addr, dir string
	log       *slog.Logger
	running   *natsd.Server
}

// newNATS returns a server that is still away.
func newNATS(t *testing.T) *natsServer {
	t.Helper()
	n := &natsServer{
		addr: freeAddr(t),
		dir:  t.TempDir(),
		log:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	t.Cleanup(n.stop)
	return n
}

// startNATS runs a server until the test ends.
func startNATS(t *testing.T) *natsServer {
	t.Helper()
	n := newNATS(t)
	n.start(t)
	return n
}

func (n *natsServer) url() string { return "nats://" + n.addr }

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	s, err := natsd.Start(natsd.Options{Dir: n.dir, Listen: n.addr, Log: n.log, MaxStore: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	n.running = s
}

func (n *natsServer) stop() {
	if n.running != nil {
		n.running.Shutdown()
		n.running = nil
	}
}

// postgres is the server that tests share; each has a database of its own.
var postgres = sync.OnceValues(func() (*pgserver.Server, error) {
	postgresAsked.Store(true)
	return pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
})

var postgresAsked atomic.Bool

// stopPostgres ends the shared server if there is one.
func stopPostgres() {
	if !postgresAsked.Load() {
		return
	}
	s, err := postgres()
	if err != nil {
		return
	}
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// needPostgres ends the test where there is no PostgreSQL.
func needPostgres(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("SIPTRACE_TEST_POSTGRES") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var databases atomic.Int64

// A db is a database of one test.
type db struct {
	url  string
	conn *pgx.Conn // opened when it is first needed
}

// database makes an empty database.
func database(t *testing.T) *db {
	t.Helper()
	s, err := postgres()
	needPostgres(t, err)
	name := "e2e_" + strconv.FormatInt(databases.Add(1), 10)
	execute(t, s.URL(), "CREATE DATABASE "+name)
	return newDB(t, s.DatabaseURL(name))
}

// newDB returns the database at a URL.
func newDB(t *testing.T, url string) *db {
	d := &db{url: url}
	t.Cleanup(d.disconnect)
	return d
}

// execute runs SQL in a database.
func execute(t *testing.T, url, sql string) {
	t.Helper()
	d := newDB(t, url)
	defer d.disconnect()
	if _, err := d.connect(t).Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (d *db) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	if d.conn == nil {
		c, err := pgx.Connect(t.Context(), d.url)
		if err != nil {
			t.Fatal(err)
		}
		d.conn = c
	}
	return d.conn
}

func (d *db) disconnect() {
	if d.conn != nil {
		_ = d.conn.Close(context.Background()) // nothing is under way
		d.conn = nil
	}
}

// A row is what db-writer has stored of a message.
type row struct {
	ID       string
	Time     time.Time
	TimeUS   int
	From, To string
	Msg      []byte
	Node     string
	CallID   string
	Method   string
}

// rows returns the rows of the database, in the order of time.
func (d *db) rows(t *testing.T) []row {
	t.Helper()
	rows, err := d.connect(t).Query(t.Context(), `SELECT event_id::text, time_stamp, time_us, fromip, toip, msg, node, callid, method
		FROM sip_trace ORDER BY time_stamp, event_id, traced_user`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// count returns how many rows there are; none while the table is missing.
func (d *db) count(t *testing.T) int {
	t.Helper()
	n := 0
	err := d.connect(t).QueryRow(t.Context(), "SELECT count(*) FROM sip_trace").Scan(&n)
	var away *pgconn.PgError
	if errors.As(err, &away) && away.Code == undefinedTable {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// undefinedTable is PostgreSQL's code for it.
const undefinedTable = "42P01"

// holds waits until there are n rows, and is sure that there are no more.
func (d *db) holds(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d rows are stored", n), func() bool { return d.count(t) >= n })
	if got := d.count(t); got != n {
		t.Errorf("%d rows are stored, want %d", got, n)
	}
}
