package sipgotap_test

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
	"github.com/seed-452fa805/siptrace/pkg/trace/sipgotap"
)

// A server built on sipgo, traced into a HEP collector.
func Example() {
	collector, _ := net.ListenPacket("udp", "127.0.0.1:0") // a siptrace tap, say
	defer func() { _ = collector.Close() }()

	// The four lines that make a program a traced one.
	tap := sipgotap.New(sipgotap.Options{Agent: trace.Agent{Name: "edge1"}})
	sink, _ := sipgotap.NewHEPSink("hep+udp://" + collector.LocalAddr().String())
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tap.Run(ctx, sink) }()

	// The program.
	ua, _ := sipgo.NewUA()
	server, _ := sipgo.NewServer(ua)
	server.OnOptions(func(req *sip.Request, tx sip.ServerTransaction) {
		tap.Message(req, sipgotap.Mark{Scope: sipgotap.Dialog, Users: []string{"alice"}})
		_ = tx.Respond(sip.NewResponseFromRequest(req, 200, "OK", nil))
	})
	socket, _ := net.ListenPacket("udp", "127.0.0.1:0")
	traced := tap.WrapPacketConn(socket)
	served := make(chan error, 1)
	go func() { served <- server.ServeUDP(traced) }()

	// Somebody asks, and is answered.
	phone, _ := net.Dial("udp", socket.LocalAddr().String())
	fmt.Fprintf(phone, "OPTIONS sip:bob@example.com SIP/2.0\r\n"+
		"Via: SIP/2.0/UDP %s;branch=z9hG4bK1\r\nFrom: <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\n"+
		"Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", phone.LocalAddr())
	_, _ = phone.Read(make([]byte, 65535))

	for range 2 {
		b := make([]byte, 65535)
		n, _, _ := collector.ReadFrom(b)
		p, _ := hep.Decode(b[:n])
		line, _, _ := strings.Cut(string(p.Payload), "\r\n")
		fmt.Printf("%s: %s\n", p.Node, line)
	}

	// The end.
	_ = phone.Close()
	_ = traced.Close()
	<-served
	_ = ua.Close()
	stop()
	<-done
	_ = sink.Close()
	fmt.Println(tap.Stats().Written, "written,", tap.Dropped(), "dropped")
	// Output:
	// edge1: OPTIONS sip:bob@example.com SIP/2.0
	// edge1: SIP/2.0 200 OK
	// 2 written, 0 dropped
}
