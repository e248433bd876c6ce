package sipgotap_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
)

// documented is the program of docs/sipgotap.md.
func documented(ctx context.Context, srv *sipgo.Server, udp net.PacketConn, secure net.Listener, collector string) error {
	tap := sipgotap.New(sipgotap.Options{Agent: trace.Agent{Name: "edge1"}, Log: slog.New(slog.DiscardHandler), Settle: time.Second})
	sink, err := sipgotap.NewHEPSink(collector)
	if err != nil {
		return err
	}
	tap.Install()
	srv.OnRegister(func(req *sip.Request, tx sip.ServerTransaction) {
		tap.Message(req, sipgotap.Mark{Scope: sipgotap.Dialog, Users: []string{"alice"}, Table: "vip"})
		tap.Log(req.CallID().Value(), "not before noon")
		tx.Respond(sip.NewResponseFromRequest(req, 403, "Forbidden", nil))
	})
	go srv.ServeUDP(tap.WrapPacketConn(udp))
	go srv.ServeTLS(tap.WrapListener(secure, trace.TLS))
	return tap.Run(ctx, sink)
}

// normal is a line of code without its comment and the space around it.
func normal(line string) string {
	line, _, _ = strings.Cut(line, " // ")
	return strings.TrimSpace(line)
}

func TestDocs_showTheProgramThatIsTested(t *testing.T) {
	page, err := os.ReadFile("../../../docs/sipgotap.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("docs_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tested []string
	_, body, _ := strings.Cut(string(source), "func documented(")
	body, _, _ = strings.Cut(body, "\n}\n")
	for line := range strings.Lines(body) {
		tested = append(tested, normal(line))
	}
	_, code, _ := strings.Cut(string(page), "```go\n")
	code, _, _ = strings.Cut(code, "```")
	code = strings.NewReplacer(`"hep+udp://127.0.0.1:9060"`, "collector", "slog.Default()", "slog.New(slog.DiscardHandler), Settle: time.Second").Replace(code)
	var shown []string
	for line := range strings.Lines(code) {
		shown = append(shown, normal(line))
	}
	if tested = tested[1:]; !slices.Equal(shown, tested) {
		t.Errorf("the page shows\n%s\nand what is tested is\n%s", strings.Join(shown, "\n"), strings.Join(tested, "\n"))
	}
}

func TestDocs_theProgramDoesWhatThePageSays(t *testing.T) {
	collector, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = collector.Close() }()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	some := httptest.NewTLSServer(nil)
	defer some.Close()
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: some.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	ua, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	srv, err := sipgo.NewServer(ua)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var program sync.WaitGroup
	program.Go(func() {
		if err := documented(ctx, srv, udp, secure, "hep+udp://"+collector.LocalAddr().String()); err != nil {
			t.Error(err)
		}
	})

	phone, err := net.Dial("udp", udp.LocalAddr().String())
	ask(t, "UDP", phone, err)
	safe, err := tls.Dial("tcp", secure.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	ask(t, "TLS", safe, err)
	got := received(t, collector, 6)
	stop()
	program.Wait()
	_, _ = udp.Close(), secure.Close()
	_ = ua.Close()
	sipgotap.New(sipgotap.Options{}).Install()() // sipgo's tracer is as before

	slices.Sort(got)
	want := []string{
		"log udp: not before noon", "log udp: not before noon",
		"tls in REGISTER", "tls out SIP/2.0 403 Forbidden", "udp in REGISTER", "udp out SIP/2.0 403 Forbidden",
	}
	if !slices.Equal(got, want) {
		t.Errorf("collected\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// ask registers, and is refused.
func ask(t *testing.T, transport string, phone net.Conn, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = phone.Close() }()
	_ = phone.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(phone, "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/%[1]s %[2]s;branch=z9hG4bK%[1]s\r\n"+
		"From: <sip:alice@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\nCall-ID: %[1]s\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n",
		transport, phone.LocalAddr())
	b := make([]byte, 65535)
	if n, err := phone.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "SIP/2.0 403") {
		t.Fatalf("%s: %q, %v; want 403", transport, b[:n], err)
	}
}

// received is what a collector has got, n events. Those of SIP must be marked.
func received(t *testing.T, collector net.PacketConn, n int) (got []string) {
	t.Helper()
	b := make([]byte, hep.MaxSize)
	for range n {
		_ = collector.SetReadDeadline(time.Now().Add(20 * time.Second))
		size, _, err := collector.ReadFrom(b)
		if err != nil {
			t.Fatalf("%d events, want %d: %v", len(got), n, err)
		}
		var d trace.FrameDecoder
		events, err := d.Decode(b[:size])
		if err != nil || len(events) != 1 {
			t.Fatalf("%d events in a packet, %v", len(events), err)
		}
		e := events[0]
		if e.Agent.Name != "edge1" || e.Table != "vip" || !slices.Equal(e.TracedUsers, []string{"alice"}) {
			t.Errorf("%s of %q: table %q, users %q; want the marks of the dialog", e.Payload, e.Agent.Name, e.Table, e.TracedUsers)
		}
		line, _, _ := strings.Cut(string(e.Payload), "\r\n")
		switch {
		case e.Type == trace.TypeLog:
			line = fmt.Sprintf("log %v: %s", e.Transport, line)
		case strings.HasPrefix(line, "SIP/2.0"):
			line = fmt.Sprint(e.Transport, " ", e.Direction, " ", line)
		default:
			method, _, _ := strings.Cut(line, " ")
			line = fmt.Sprint(e.Transport, " ", e.Direction, " ", method)
		}
		got = append(got, line)
	}
	return got
}
