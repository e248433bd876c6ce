package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

func TestFaults_PostgreSQL_diskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=12m,mode=777"); err != nil {
		t.Skipf("no small disk: %v", err)
	}
	for dir := filepath.Dir(disk); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another user
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	server := breakable(t)
	dir := newDB(t, server.URL())
	var data string
	if err := dir.connect(t).QueryRow(t.Context(), "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(disk, int(info.Sys().(*syscall.Stat_t).Uid), -1); err != nil {
		t.Fatal(err)
	}
	execute(t, server.URL(), "CREATE TABLESPACE small LOCATION '"+disk+"'")
	execute(t, server.URL(), "CREATE DATABASE fault TABLESPACE small")

	d, nats := newDB(t, server.DatabaseURL("fault")), startNATS(t)
	tr := try(t, "PostgreSQL: disk full until somebody enlarges it", nats, d)
	writer := tr.startWriter()
	tr.begin()
	tr.await("the disk is full", func(context.Context) bool { return strings.Contains(writer.err.String(), "No space left on device") })
	tr.wait(tr.scale.dbAway)
	if !writer.alive() {
		t.Fatal("the writer has ended")
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=4g"); err != nil {
		t.Fatal(err)
	}
	tr.cure()
	tr.finish()
	o := tr.census()
	tr.lossless(o)
	tr.report(o, "the writer said so and tried again; %d events were rejected", rejections(writer, t))
}

func TestFaults_PostgreSQL_tableDropped(t *testing.T) {
	d, nats := database(t), startNATS(t)
	tr := try(t, "PostgreSQL: tables dropped, made again", nats, d)
	writer := tr.startWriter()
	tr.begin()
	held := drop(t, d)
	tr.wait(tr.scale.dbAway)
	must(t, "ctl", "schema", "apply", "--store", d.url)
	tr.halt()
	eventually(t, "the tap holds nothing more", func() bool { return tr.tap.metric(t, "siptrace_tap_buffer_bytes") == 0 })
	worked(t, nats)

	stream, either := streamed(t, nats), d.ids(t)
	for id := range held {
		either[id] = max(either[id], 1)
	}
	o := tally(tr.ids(), stream, either)
	rejected := rejections(writer, t)
	if o.before > 0 || o.double > 0 || o.strange > 0 || o.after != rejected {
		t.Errorf("of %d events %d are missing, of which %d were rejected; %d stored twice", o.sent, o.before+o.after, rejected, o.double)
	}
	must(t, "ctl", "replay", "--nats", nats.url(), "--to", d.url)
	equal(t, "after ctl replay", d.ids(t), stream)
	tr.report(o, "%d rows went with the table, %d events to the rejects; ctl replay brought all of them back", len(held), rejected)
}

// rejections is how many events a writer has rejected so far.
func rejections(p *process, t *testing.T) int {
	t.Helper()
	if p.metrics(t)["siptrace_consumer_rejected_total"] == nil {
		return 0 // none of any kind
	}
	return int(p.metric(t, "siptrace_consumer_rejected_total"))
}

// drop drops the table, with all of its schema, and returns what was in it.
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
		_, err = tx.Exec(t.Context(), "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return held
}
