package sipgotap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// events are n events as a tap makes them.
func events(n int) []trace.Event {
	list := make([]trace.Event, n)
	for i := range list {
		list[i] = trace.Event{
			Time: time.Unix(1_700_000_000, int64(i)*1000), Agent: trace.Agent{ID: 7, Name: "edge1"}, Transport: trace.WSS,
			Src: there, Dst: here, Direction: trace.In, Type: trace.TypeSIP, Payload: request("OPTIONS", "a", i, 0),
			TracedUsers: []string{"alice"}, Table: "t",
		}
		list[i].Identify()
	}
	return list
}

// text is events as text, to be compared.
func text(events []trace.Event) string { return fmt.Sprint(events) }

// fromPackets decodes packets as the bus does.
func fromPackets(t *testing.T, packets ...[]byte) []trace.Event {
	t.Helper()
	var d trace.FrameDecoder
	d.Reset()
	var list []trace.Event
	for _, b := range packets {
		got, err := d.Append(b)
		if err != nil {
			t.Fatal(err)
		}
		list = got
	}
	return list
}

func TestHEPSink_overUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := NewHEPSink("hep+udp://" + c.LocalAddr().String() + "?auth=secret")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	want := events(10)
	if err := s.Write(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	var packets [][]byte
	for range want {
		b := make([]byte, 65535)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b[:n])
		p, err := hep.Decode(b[:n])
		if err != nil || string(p.AuthKey) != "secret" {
			t.Fatalf("auth key %q, %v; want secret", p.AuthKey, err)
		}
	}
	if got := fromPackets(t, packets...); text(got) != text(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// arrives checks that the events come over c, and that who sends them is told so.
func arrives(t *testing.T, c net.Conn, want []trace.Event, sent <-chan error) {
	t.Helper()
	r := hep.NewReader(c)
	var packets [][]byte
	for range want {
		b, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, slices.Clone(b))
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if got := fromPackets(t, packets...); text(got) != text(want) {
		t.Errorf("%d events are not the %d that were sent", len(got), len(want))
	}
}

func TestHEPSink_overTCPConnectsAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, err := NewHEPSink("hep+tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	want := events(200)
	for range 3 {
		sent := make(chan error, 1)
		go func() { sent <- s.Write(t.Context(), want) }()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		arrives(t, c, want, sent)
		done := s.conn.done
		_ = c.Close()
		<-done // the sink has noticed, and the next Write fails or connects again
		if err := s.Write(t.Context(), want[:1]); err == nil {
			t.Fatal("a Write to a collector that has gone reports no error")
		}
	}
}

func TestHEPSink_reportsWhoIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s, err := NewHEPSink("hep+tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), events(1)); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error = %v, want one that names %v", err, l.Addr())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestHEPSink_aPeerThatReadsNothingEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, err := NewHEPSink("hep+tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for err == nil { // until the kernel takes no more
		err = s.Write(ctx, events(1000))
	}
	if ctx.Err() == nil {
		t.Errorf("error = %v, before the context ended", err)
	}
}

func TestHEPSink_aContextThatEndsLeavesNothingBehind(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := NewHEPSink("hep+udp://" + c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	list := events(2)
	for range 2000 {
		if err := s.Write(t.Context(), list[:1]); err != nil { // what ended before is of no more effect
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		_ = s.Write(ctx, list) // as it likes
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
	}
}

func TestHEPSink_rejectsWhatCannotBeSent(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := NewHEPSink("hep+udp://" + c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	list := events(4)
	list[1].Time = time.Unix(-1, 0)
	list[2].Payload = nil
	bare, err := trace.AppendEvent(nil, &list[2])
	if err != nil {
		t.Fatal(err)
	}
	list[2].Payload = make([]byte, hep.MaxSize-len(bare)-20) // HEP can carry it, a datagram cannot
	err = s.Write(t.Context(), list)
	rejected, ok := err.(trace.Rejected)
	if !ok || len(rejected) != 2 || rejected[0].Index != 1 || rejected[1].Index != 2 {
		t.Errorf("error = %v, want events 1 and 2 rejected", err)
	}
}

func TestNewHEPSink_errors(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:9060", "udp://127.0.0.1:9060", "hep+sctp://127.0.0.1", "hep+udp://", "hep+udp://:9060", "hep+udp://u@h:1", "hep+udp://h/path",
		"hep+udp://h?secret=x", "hep+udp://h?auth=x&auth=y", "hep+udp://h?auth=", "hep+udp://h?auth=x;y", "hep+udp://h:port",
		"hep+tcp://h?ca=x", "hep+tls://h?colour=x", "hep+tls://h?ca=/does/not/exist", "hep+tls://h?cert=/does/not/exist", "hep+tls://h?ca=hepsink_test.go",
	} {
		if s, err := NewHEPSink(address); err == nil {
			t.Errorf("NewHEPSink(%q) = %+v, want an error", address, s)
		}
	}
	for address, want := range map[string]string{"hep+udp://[::1]": "[::1]:9060", "hep+tls://h": "h:9061"} {
		s, err := NewHEPSink(address)
		if err != nil || s.addr != want {
			t.Errorf("NewHEPSink(%q) = %v, %v; want %s", address, s, err, want)
		}
	}
}

func TestNewHEPSink_errorsTellNoSecret(t *testing.T) {
	for _, address := range []string{"hep+udp://h?auth=topsecret&x=y", "hep+udp://h?auth=topsecret;", "hep+udp://%zz?auth=topsecret", "x://h?auth=topsecret"} {
		if _, err := NewHEPSink(address); err == nil || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("NewHEPSink(%q) = %v, want an error without the key", address, err)
		}
	}
}

// pemFiles are a certificate and its key as files.
func pemFiles(t *testing.T, config *tls.Config) (cert, key string) {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestHEPSink_overTLSShowsItsCertificate(t *testing.T) {
	config, _ := certificates(t)
	config.ClientAuth = tls.RequireAnyClientCert
	cert, key := pemFiles(t, config)
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	sink := func(options string) *HEPSink {
		s, err := NewHEPSink("hep+tls://" + l.Addr().String() + options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	write := func(s *HEPSink, events []trace.Event) (sent chan error) {
		sent = make(chan error, 1)
		go func() { sent <- s.Write(t.Context(), events) }()
		return sent
	}
	want := events(200)
	sent := write(sink("?ca="+cert+"&cert="+cert+"&key="+key), want)
	c := accept()
	arrives(t, c, want, sent)
	_ = c.Close()

	for options, words := range map[string]string{"?ca=" + cert: "certificate required", "": "unknown authority", "?server-name=b&ca=" + cert: "not b"} {
		s := sink(options)
		sent := write(s, want)
		c := accept()
		_ = c.(*tls.Conn).Handshake() // fails
		var gone sync.WaitGroup
		gone.Go(func() { // a collector that closes at once may cut off its own words
			_, _ = io.Copy(io.Discard, c.(*tls.Conn).NetConn())
			_ = c.Close()
		})
		err := <-sent
		if err == nil { // TLS 1.3 tells it a little later
			<-s.conn.done
			err = s.Write(t.Context(), want)
		}
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: error = %v, want %q", options, err, words)
		}
		gone.Wait()
	}
}
