package app

import (
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	sipmessage "github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/testcert"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
)

// reporting is a sink as programs with a tap of their own use it.
func reporting(t *testing.T, url string) *sipgotap.HEPSink {
	t.Helper()
	sink, err := sipgotap.NewHEPSink(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	return sink
}

// markedEvent is a message with every mark there is.
func markedEvent(call string) trace.Event {
	e := talk{call, "alice", "bob"}.say("INVITE")
	e.Agent, e.Transport, e.Direction = trace.Agent{Name: "edge1"}, trace.WSS, trace.Out
	e.Table, e.TracedUsers, e.Destinations = "fraud", []string{"alice", "bob"}, []string{"hep+udp://192.0.2.9:9060"}
	e.Flags = trace.NoDuplicate
	e.Identify()
	return e
}

// of returns the events of a call that are in the stream.
func (tl *tail) of(call string) (found []trace.Event) {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	for _, e := range tl.events {
		if strings.Contains(string(e.Payload), "Call-ID: "+call+"\r\n") {
			found = append(found, e)
		}
	}
	return found
}

func TestTap_marksOfTrustedSendersReachTheStream(t *testing.T) {
	b := newBus(t)
	open, keyed := freeAddr(t), freeAddr(t)
	trusted := b.hep + "?trust=1"
	b.hep = trusted
	b.startTap(t, "edge", func(f *TapFlags) {
		f.In = append(f.In, "hep+udp://"+open, "hep+tcp://"+keyed+"?trust=1&auth=secret")
	})
	addr := strings.TrimSuffix(trusted, "?trust=1")
	for url, call := range map[string]string{"hep+udp://" + addr: "trusted", "hep+tcp://" + keyed + "?auth=secret": "keyed"} {
		want := markedEvent(call)
		if err := reporting(t, url).Write(t.Context(), []trace.Event{want}); err != nil {
			t.Fatal(err)
		}
		eventually(t, call+" is in the stream", func() bool { return len(b.tail.of(call)) == 1 })
		got := b.tail.of(call)[0]
		got.Time = got.Time.UTC()
		if len(got.CorrelationID)+len(got.Chunks) == 0 {
			got.CorrelationID, got.Chunks = nil, nil // none is none
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", call, got, want)
		}
	}

	stranger := markedEvent("stranger")
	for url, why := range map[string]string{"hep+udp://" + open: "not trusted", "hep+tcp://" + keyed: "auth"} {
		if err := reporting(t, url).Write(t.Context(), []trace.Event{stranger}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is counted: "+why, func() bool {
			return b.tap.count(t, "siptrace_tap_hep_marks_left_out_total", why)+b.tap.count(t, "siptrace_tap_hep_dropped_total", why) == 1
		})
	}
	eventually(t, "the stranger's is in the stream", func() bool { return len(b.tail.of("stranger")) == 1 })
	got := b.tail.of("stranger")[0]
	if got.Table != "" || got.TracedUsers != nil || got.Destinations != nil || got.Flags != 0 || got.Direction != 0 || got.Transport != trace.TLS {
		t.Errorf("got %+v, want no marks", got)
	}
}

// A program is one that is built on sipgo and traced: it answers OPTIONS, whose
// dialogs it marks, and MESSAGE, which it leaves alone.
type sipProgram struct {
	tap    *sipgotap.Tap
	client *sipgo.Client       // somebody who asks it
	at     map[string]net.Addr // by transport
}

// startProgram runs the program until the test ends.
func startProgram(t *testing.T, hep string) *sipProgram {
	t.Helper()
	sipmessage.SetDefaultLogger(slog.New(slog.DiscardHandler))
	sipmessage.SetTimers(time.Minute, time.Minute, time.Minute) // nothing is sent again while a machine is busy
	p := &sipProgram{tap: sipgotap.New(sipgotap.Options{Agent: trace.Agent{Name: "program"}}), at: make(map[string]net.Addr)}
	sink := reporting(t, hep)
	background(t, func(ctx context.Context) { _ = p.tap.Run(ctx, sink) })

	ua, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ua.Close() })
	server, err := sipgo.NewServer(ua)
	if err != nil {
		t.Fatal(err)
	}
	ok := func(req *sipmessage.Request, tx sipmessage.ServerTransaction) {
		if err := tx.Respond(sipmessage.NewResponseFromRequest(req, 200, "OK", nil)); err != nil {
			t.Errorf("respond: %v", err)
		}
	}
	server.OnOptions(func(req *sipmessage.Request, tx sipmessage.ServerTransaction) {
		p.tap.Message(req, sipgotap.Mark{Scope: sipgotap.Dialog, Users: []string{req.From().Address.User}, Table: "fraud"})
		ok(req, tx)
	})
	server.OnMessage(ok)
	p.listen(t, server)

	asking, err := sipgo.NewUA(sipgo.WithUserAgent("alice"), sipgo.WithUserAgenTLSConfig(&tls.Config{InsecureSkipVerify: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asking.Close() })
	if p.client, err = sipgo.NewClient(asking, sipgo.WithClientHostname("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	return p
}

// listen serves UDP, TLS and WSS.
func (p *sipProgram) listen(t *testing.T, server *sipgo.Server) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{testcert.New(t).Load(t)}}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.at["udp"] = udp.LocalAddr()
	udp = p.tap.WrapPacketConn(udp)
	background(t, func(context.Context) { _ = server.ServeUDP(udp) })
	t.Cleanup(func() { _ = udp.Close() })
	for transport, serve := range map[trace.Transport]func(net.Listener) error{trace.TLS: server.ServeTLS, trace.WSS: server.ServeWSS} {
		l, err := tls.Listen("tcp4", "127.0.0.1:0", config)
		if err != nil {
			t.Fatal(err)
		}
		p.at[transport.String()] = l.Addr()
		l = p.tap.WrapListener(l, transport)
		background(t, func(context.Context) { _ = serve(l) })
		t.Cleanup(func() { _ = l.Close() })
	}
}

// ask sends a request to the program and waits for the answer.
func (p *sipProgram) ask(t *testing.T, method sipmessage.RequestMethod, transport string) {
	t.Helper()
	at, err := net.ResolveTCPAddr("tcp", p.at[transport].String())
	if err != nil {
		t.Fatal(err)
	}
	req := sipmessage.NewRequest(method, sipmessage.Uri{Scheme: "sip", User: "bob", Host: at.IP.String(), Port: at.Port})
	req.SetTransport(strings.ToUpper(transport))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if res, err := p.client.Do(ctx, req); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s over %s: %v, %v", method, transport, res, err)
	}
}

// tableRows are the rows of a table of a SQLite file, as text and in order. A
// table that is not there yet has none.
func tableRows(t *testing.T, file, table string) (rows []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.QueryContext(t.Context(), `SELECT node, transport, direction, method, status, traced_user FROM `+table)
	if err != nil {
		return nil
	}
	defer found.Close()
	for found.Next() {
		var node, transport, direction, method, status, user string
		if err := found.Scan(&node, &transport, &direction, &method, &status, &user); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, strings.Join(strings.Fields(strings.Join([]string{node, transport, direction, method, status, user}, " ")), " "))
	}
	slices.Sort(rows)
	return rows
}

// TestTap_marksOfAProgramReachTheDatabase goes all the way: sipgo, its tap, HEP,
// a tap that trusts it, NATS, db-writer, SQLite.
func TestTap_marksOfAProgramReachTheDatabase(t *testing.T) {
	b := newBus(t)
	addr := b.hep
	b.hep += "?trust=1"
	b.startTap(t, "edge")
	file := filepath.Join(t.TempDir(), "siptrace.db")
	serve(t, WriterModule(WriterFlags{
		Store: "sqlite:" + file, Table: "sip_trace", Durable: "db-writer", Batch: 5000, Linger: Duration(10 * time.Millisecond),
		Connections: 1, AutoSchema: true, CreateTables: true, Partition: "day", Durability: "full",
	}, bus.Options{URL: b.url, Name: "db-writer"}, bus.StreamConfig{}))

	p := startProgram(t, "hep+udp://"+addr)
	var marked, plain []string
	for _, transport := range []string{"udp", "tls", "wss"} {
		p.ask(t, sipmessage.OPTIONS, transport)
		p.ask(t, sipmessage.MESSAGE, transport)
		for _, user := range []string{"", " alice"} {
			marked = append(marked, "program "+transport+" in OPTIONS"+user, "program "+transport+" out OPTIONS 200"+user)
		}
		plain = append(plain, "program "+transport+" in MESSAGE", "program "+transport+" out MESSAGE 200")
	}
	for table, want := range map[string][]string{"fraud": marked, "sip_trace": plain} {
		slices.Sort(want)
		var got []string
		eventually(t, fmt.Sprintf("%d rows are in %s", len(want), table), func() bool {
			got = tableRows(t, file, table)
			return len(got) >= len(want)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", table, got, want)
		}
	}
	if s := p.tap.Stats(); s.Written != 12 || s.Dropped+s.Refused+s.Faults != 0 {
		t.Errorf("%+v, want 12 written", s)
	}
}
