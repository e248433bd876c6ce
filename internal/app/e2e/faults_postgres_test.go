package e2e

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// breakable is a PostgreSQL of the test's own.
func breakable(t *testing.T) *pgserver.Server {
	t.Helper()
	settings := []string{pgserver.SmallMemory}
	if !fullFaults() {
		settings = append(settings, pgserver.NoSync)
	}
	server, err := pgserver.Start("", settings...)
	needPostgres(t, err)
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// quit asks PostgreSQL to end as an administrator does: at once and in order.
func quit(t *testing.T, server *pgserver.Server) {
	t.Helper()
	d := newDB(t, server.URL())
	var file string
	if err := d.connect(t).QueryRow(t.Context(), "SELECT pg_read_file('postmaster.pid')").Scan(&file); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(file, "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

func TestFaults_PostgreSQL(t *testing.T) {
	brief(t)
	server := breakable(t)
	s := faultScale()
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, fault := range []struct {
		name string
		do   func(t *testing.T, tr *trial)
	}{
		{fmt.Sprintf("PostgreSQL: stopped for %v", s.dbAway), func(t *testing.T, tr *trial) {
			quit(t, server)
			tr.wait(s.dbAway)
			check(t, server.Restart())
		}},
		{fmt.Sprintf("PostgreSQL: killed (immediate), away for %v", s.dbAway), func(t *testing.T, tr *trial) {
			check(t, server.Kill())
			tr.wait(s.dbAway)
			check(t, server.Restart())
		}},
		{fmt.Sprintf("PostgreSQL: frozen (SIGSTOP) for %v", s.dbFrozen), func(t *testing.T, tr *trial) {
			check(t, server.Pause())
			tr.wait(s.dbFrozen)
			check(t, server.Resume())
		}},
		{fmt.Sprintf("PostgreSQL: connections cut all the time for %v", s.dbAway), func(t *testing.T, tr *trial) {
			if cutConnections(tr, server) == 0 {
				t.Error("no connection was cut: the test proves nothing")
			}
		}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			name := fmt.Sprintf("fault_%d", i)
			execute(t, server.URL(), "CREATE DATABASE "+name)
			d, nats := newDB(t, server.DatabaseURL(name)), startNATS(t)
			tr := try(t, fault.name, nats, d)
			writer := tr.startWriter()
			tr.begin()
			d.disconnect()
			fault.do(t, tr)
			tr.cure()
			tr.finish()
			o := tr.census()
			tr.lossless(o)
			tr.report(o, "the stream held what could not be written; %.0f batches were written again",
				writer.metric(t, "siptrace_consumer_write_retries_total"))
		})
	}
}

// cutConnections ends the writer's connections wherever they are, again and again.
func cutConnections(tr *trial, server *pgserver.Server) int {
	admin := newDB(tr.T, server.URL())
	cut := 0
	for end := time.Now().Add(tr.scale.dbAway); time.Now().Before(end); tr.wait(50 * time.Millisecond) {
		n := 0
		if err := admin.connect(tr.T).QueryRow(tr.Context(), `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname LIKE 'fault\_%' AND backend_type = 'client backend'`).Scan(&n); err != nil {
			tr.Fatal(err)
		}
		cut += n
	}
	return cut
}

func TestFaults_PostgreSQL_tableDropped(t *testing.T) {
	brief(t)
	d, nats := database(t), startNATS(t)
	tr := try(t, fmt.Sprintf("PostgreSQL: sip_trace dropped, made again after %v", faultScale().dbAway), nats, d)
	writer := tr.startWriter()
	tr.begin()
	held := drop(t, d)
	tr.wait(tr.scale.dbAway)
	must(t, "ctl", "schema", "apply", "--store", d.url)
	tr.cure()
	tr.finish()

	stream, rows := streamed(t, nats), d.ids(t)
	for id := range held {
		if rows[id] > 0 {
			t.Errorf("event %v is stored again: nobody had asked for that", id)
			break
		}
	}
	either := maps.Clone(rows)
	maps.Copy(either, held)
	o := tally(tr.ids(), stream, either)
	tr.lossless(o)
	o.stored = len(rows)
	if n := rejections(writer, t); n > 0 {
		t.Errorf("%d events were rejected, want none: they wait for the table", n)
	}
	must(t, "ctl", "replay", "--nats", nats.url(), "--to", d.url)
	equal(t, "after ctl replay", d.ids(t), stream)
	tr.report(o, "the writer waited; %d rows went with the table, and ctl replay brought them back", len(held))
}

// rejections is how many events a writer has rejected so far.
func rejections(p *process, t *testing.T) int {
	t.Helper()
	if p.metrics(t)["siptrace_consumer_rejected_total"] == nil {
		return 0 // none of any kind
	}
	return int(p.metric(t, "siptrace_consumer_rejected_total"))
}

// drop drops the table and returns what was in it.
func drop(t *testing.T, d *db) map[trace.ID]int {
	t.Helper()
	var held map[trace.ID]int
	err := pgx.BeginFunc(t.Context(), d.connect(t), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "LOCK TABLE sip_trace IN ACCESS EXCLUSIVE MODE")
		if err != nil {
			return err
		}
		if held, err = rowIDs(t.Context(), tx); err != nil {
			return err
		}
		_, err = tx.Exec(t.Context(), "DROP TABLE sip_trace CASCADE")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return held
}
