package e2e

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store/storetest"
)

// kamailioVersions is the table that Kamailio's own scripts make beside each of
// theirs, and that it reads before it writes.
const kamailioVersions = `
CREATE TABLE version (id SERIAL PRIMARY KEY, table_name VARCHAR(32) NOT NULL UNIQUE, table_version INTEGER DEFAULT 0 NOT NULL);
INSERT INTO version (table_name, table_version) VALUES ('sip_trace', 4);`

// needKamailioPostgres ends the test where Kamailio cannot write to PostgreSQL.
func needKamailioPostgres(t *testing.T) {
	t.Helper()
	needSIP(t)
	if _, err := os.Stat(kamailioModules() + "db_postgres.so"); err == nil {
		return
	}
	if os.Getenv("SIPTRACE_TEST_KAMAILIO") == "require" {
		t.Fatal("not installed: db_postgres of kamailio")
	}
	t.Skip("not installed: db_postgres of kamailio")
}

// A tracedRow is a row with Kamailio's columns, but for id and time.
type tracedRow struct {
	CallID, User, Msg, Method, Status, From, To, FromTag, ToTag, Direction string
}

// tracedRows reads rows; msg is an expression for the digits of the message.
func (d *db) tracedRows(t *testing.T, msg, at string) map[tracedRow][]time.Time {
	t.Helper()
	rows, err := d.connect(t).Query(t.Context(), fmt.Sprintf(`SELECT callid, traced_user, %s, method, status, fromip, toip, fromtag, totag, direction, %s
		FROM sip_trace`, msg, at))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[tracedRow][]time.Time)
	var r tracedRow
	var when time.Time
	_, err = pgx.ForEachRow(rows, []any{&r.CallID, &r.User, &r.Msg, &r.Method, &r.Status, &r.From, &r.To, &r.FromTag, &r.ToTag, &r.Direction, &when}, func() error {
		all[r] = append(all[r], when)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, times := range all {
		slices.SortFunc(times, time.Time.Compare)
	}
	return all
}

// kamailioURL is a database's address as Kamailio's db_postgres reads it: without
// parameters.
func kamailioURL(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return fmt.Sprintf("postgres://%s:%s@%s%s", u.User.Username(), password, u.Host, u.Path)
}

// One Kamailio writes its rows itself, and tells a tap of the same messages by
// HEP: both tables hold the same.
func TestPipeline_writesTheRowsThatKamailioWrites(t *testing.T) {
	needKamailioPostgres(t)
	theirs, ours := database(t), database(t)
	execute(t, theirs.url, kamailioVersions+storetest.KamailioTable)
	nats := startNATS(t)
	tapAddr, proxyAddr := freeAddr(t), freeAddr(t)
	wire := newRelay(t, tapAddr)
	writer := program(t, "db-writer", "--nats", nats.url(), "--store", ours.url, "--http", loopback+":0")
	tap := program(t, "tap", "--nats", nats.url(), "--in", "hep+udp://"+tapAddr, "--agent-name", "edge", "--local-net", proxyAddr, "--http", loopback+":0")
	writer.ready(t)
	tap.ready(t)
	proxy := startProxyAt(t, proxyAddr, 3, wire.addr(), kamailioURL(t, theirs.url))
	least := proxy.traffic(t, 5)
	proxy.process.stop(t)
	settled(t, wire, least)
	eventually(t, "Kamailio's rows are there", func() bool { return theirs.count(t) >= least })
	ours.holds(t, theirs.count(t))

	zone := time.Now().Format("-07:00") // Kamailio writes local time
	want := theirs.tracedRows(t, `CASE WHEN left(msg, 2) = '\x' THEN substr(msg, 3) ELSE encode(convert_to(msg, 'UTF8'), 'hex') END`,
		`(time_stamp::text || '`+zone+`')::timestamptz + time_us * interval '1 microsecond'`)
	got := ours.tracedRows(t, `encode(msg, 'hex')`, `time_stamp`)
	for r, times := range want {
		if len(got[r]) != len(times) {
			t.Errorf("%d rows, Kamailio has %d: %+v", len(got[r]), len(times), short(r))
			continue
		}
		for i := range times {
			if apart := times[i].Sub(got[r][i]).Abs(); apart > 2*time.Second { // it looks at its clock for each of them
				t.Errorf("%v apart: %+v", apart, short(r))
			}
		}
	}
	for r := range got {
		if len(want[r]) == 0 {
			t.Errorf("Kamailio has no row %+v", short(r))
		}
	}
	if len(want) < least/2 {
		t.Errorf("%d different rows, want more", len(want))
	}
}

// short is a row without its message.
func short(r tracedRow) tracedRow {
	r.Msg = fmt.Sprintf("%d digits", len(r.Msg))
	return r
}
