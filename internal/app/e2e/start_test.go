package e2e

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/pgserver"
)

// waitsFor waits until /readyz says all of the words, and is sure that the
// service is well otherwise.
func (p *process) waitsFor(t *testing.T, words ...string) {
	t.Helper()
	body := ""
	eventually(t, p.name+" waits for "+strings.Join(words, " "), func() bool {
		var code int
		code, body = p.ask(t, "/readyz")
		return code == http.StatusServiceUnavailable && containsAll(body, words)
	})
	for line := range strings.Lines(body) {
		if len(line) > 300 {
			t.Errorf("%s: /readyz says %q, want something short", p.name, line)
		}
	}
	if code, _ := p.ask(t, "/healthz"); code != http.StatusOK {
		t.Errorf("%s: /healthz = %d, want 200: it waits and is not ill", p.name, code)
	}
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

func TestServices_startWithoutNATSAndRecover(t *testing.T) {
	d, nats, collector := database(t), newNATS(t), collectUDP(t)
	addr := freeAddr(t)
	tap := startTap(t, nats.url(), "edge", addr, t.TempDir())
	writer := startWriter(t, nats, d)
	forwarder := program(t, "hep-forwarder", "--nats", nats.url(), "--to", "hep+udp://"+collector.addr(), "--start", "all", "--http", loopback+":0")
	for _, p := range []*process{tap, writer, forwarder} {
		p.waitsFor(t, "nats: ", nats.url())
	}
	s := send(t, "udp", addr)
	s.invites(10) // the tap holds them meanwhile
	eventually(t, "the tap has them", func() bool { return tap.metric(t, "siptrace_tap_hep_events_total") == 10 })

	nats.start(t)
	for _, p := range []*process{tap, writer, forwarder} {
		p.ready(t)
	}
	s.once(d)
	eventually(t, "the collector has them", func() bool { return len(collector.received(t)) == len(s.sent) })
	s.invites(10)
	s.once(d)
	for _, p := range []*process{tap, writer, forwarder} {
		p.stop(t)
	}
}

func TestServices_endAtOnceWhileNATSIsAway(t *testing.T) {
	d, nats := database(t), newNATS(t)
	for _, p := range []*process{
		startTap(t, nats.url(), "edge", freeAddr(t), t.TempDir()),
		startWriter(t, nats, d),
		program(t, "hep-forwarder", "--nats", nats.url(), "--to", "hep+udp://"+loopback, "--http", loopback+":0"),
	} {
		p.waitsFor(t, "nats: ")
		began := time.Now()
		p.stop(t)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %v to end", p.name, took)
		}
	}
}

func TestWriter_startsWithoutPostgreSQLAndRecovers(t *testing.T) {
	server, err := pgserver.Start("", pgserver.NoSync, pgserver.SmallMemory)
	needPostgres(t, err)
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	execute(t, server.URL(), "CREATE DATABASE siptrace")
	d := newDB(t, server.DatabaseURL("siptrace"))
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}

	nats := startNATS(t)
	addr := freeAddr(t)
	tap := startTap(t, nats.url(), "edge", addr, t.TempDir())
	writer := startWriter(t, nats, d)
	writer.waitsFor(t, "database: ", server.Addr(), "connection refused")
	tap.ready(t)
	s := send(t, "udp", addr)
	s.invites(10)

	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	writer.ready(t)
	s.once(d)

	// And once more, now that it has been there.
	d.disconnect()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	writer.waitsFor(t, "database: ", server.Addr())
	s.invites(10)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	writer.ready(t)
	s.once(d)
	writer.stop(t)
}

func TestWriter_saysInOneLineWhatIsWrongWithTheDatabaseAndGoesOnTrying(t *testing.T) {
	shared, err := postgres()
	needPostgres(t, err)
	n := strconv.FormatInt(databases.Add(1), 10)
	keeper, nowhere := "keeper_"+n, "nowhere_"+n
	execute(t, shared.URL(), "CREATE ROLE "+keeper+" LOGIN PASSWORD 'right'")
	as := func(user, password, database string) string {
		u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: shared.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
		return u.String()
	}
	d := database(t)
	tests := []struct {
		name, store string
		words       []string
		cure        func(t *testing.T)
	}{
		{
			"a wrong password", as(keeper, "wrong-7531", strings.TrimPrefix(pathOf(t, d.url), "/")),
			[]string{"password", keeper},
			func(t *testing.T) {
				execute(t, shared.URL(), "ALTER ROLE "+keeper+" PASSWORD 'wrong-7531'")
				execute(t, d.url, "GRANT ALL ON SCHEMA public TO "+keeper)
			},
		},
		{
			"a database that is not there", shared.DatabaseURL(nowhere),
			[]string{nowhere, "does not exist"},
			func(t *testing.T) { execute(t, shared.URL(), "CREATE DATABASE "+nowhere) },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			nats := startNATS(t)
			writer := program(t, "db-writer", "--nats", nats.url(), "--store", tt.store, "--http", loopback+":0")
			writer.waitsFor(t, append(tt.words, "database: ")...)
			eventually(t, "the log says so", func() bool { return said(writer, tt.words) })
			if strings.Contains(writer.err.String(), "wrong-7531") {
				t.Error("the log shows the password")
			}
			if !writer.alive() {
				t.Fatal("the writer has ended instead of trying again")
			}
			tt.cure(t)
			writer.ready(t)
			writer.stop(t)
		})
	}
}

// said reports whether one warning or error of the log has all of the words.
func said(p *process, words []string) bool {
	for _, line := range p.err.lines() {
		if (strings.Contains(line, `"WARN"`) || strings.Contains(line, `"ERROR"`)) && containsAll(line, words) && len(line) < 600 {
			return true
		}
	}
	return false
}

func pathOf(t *testing.T, s string) string {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path
}

func TestForwarder_isNotReadyWhileItCannotReadTheStream(t *testing.T) {
	nats := startNATS(t)
	p := program(t, "hep-forwarder", "--nats", nats.url(), "--to", "hep+udp://"+loopback, "--no-make-streams", "--http", loopback+":0")
	p.waitsFor(t, "stream: ", "stream not found")
	p.stop(t)
}

func TestServices_startWhileTheirPortsAreTakenAndWait(t *testing.T) {
	d, nats := database(t), startNATS(t)
	addr, web := freeAddr(t), freeAddr(t)
	udp, err := net.ListenPacket("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp4", web)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tap := startTap(t, nats.url(), "edge", addr, t.TempDir())
	writer := program(t, "db-writer", "--nats", nats.url(), "--store", d.url, "--http", web)
	tap.waitsFor(t, "inputs: ", addr, "address already in use")
	for _, p := range []*process{tap, writer} {
		eventually(t, "the log says so", func() bool { return said(p, []string{"address already in use", "ss -lnptu"}) })
	}
	_ = udp.Close()
	_ = tcp.Close()
	tap.ready(t)
	writer.ready(t)
	s := send(t, "udp", addr)
	s.invites(10)
	s.once(d)
	for _, p := range []*process{tap, writer} {
		p.stop(t)
	}
}
