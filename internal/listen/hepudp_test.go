package listen

import (
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestHEPUDP_makesEventsOfPackets(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	chunk := hep.AppendChunk(nil, 0, hep.ChunkTCPFlags, []byte{2})
	send(t, dial(t, s), packet(t, message, func(p *hep.Packet) {
		p.Protocol, p.CorrelationID, p.VLAN, p.Extra = hep.ProtocolTCP, []byte("one@192.0.2.1"), 42, chunk
	}))
	e := in.wait(t, 1)[0]
	if !e.Time.Equal(noon) || e.Src != src || e.Dst != dst || e.Transport != trace.TCP || e.Type != trace.TypeSIP ||
		e.Agent != (trace.Agent{ID: 2001, Name: "edge1"}) || e.VLAN != 42 || string(e.Payload) != message ||
		string(e.CorrelationID) != "one@192.0.2.1" || string(e.Chunks) != string(chunk) || e.Direction != trace.DirectionUnknown {
		t.Errorf("got %+v", e)
	}
}

// recording is what a Kamailio sent, and what each datagram of it says as
// another decoder reads it.
func recording(t *testing.T, version int) (datagrams [][]byte, want []string) {
	t.Helper()
	name := filepath.Join("testdata", fmt.Sprintf("kamailio-hep%d", version))
	f, err := os.Open(name + ".lp.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for len(all) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(all))
		datagrams = append(datagrams, all[4:n])
		all = all[n:]
	}
	list, err := os.ReadFile(name + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	return datagrams, strings.Split(strings.TrimSuffix(string(list), "\n"), "\n")
}

func TestHEPUDP_understandsKamailio(t *testing.T) {
	for version := 1; version <= 3; version++ {
		t.Run(fmt.Sprintf("HEP%d", version), func(t *testing.T) {
			datagrams, want := recording(t, version)
			if len(datagrams) != 124 || len(want) != 124 {
				t.Fatalf("recording has %d datagrams and %d lines, want 124", len(datagrams), len(want))
			}
			s := listenUDP(t, HEPOptions{})
			in := newInbox()
			start(t, s, in)
			before := time.Now()
			send(t, dial(t, s), datagrams...)
			events := in.wait(t, len(datagrams))
			for i, e := range events {
				at := fmt.Sprint(e.Time.UnixMicro())
				if version == 1 { // has no time of its own
					if e.Time.Before(before.Add(-time.Millisecond)) || e.Time.After(time.Now()) {
						t.Errorf("datagram %d: time %v is not that of its coming", i, e.Time)
					}
					at = "-"
				}
				got := fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%d\t%x", at, e.Src, e.Dst, e.Agent.ID, e.Type, len(e.Payload), sha1.Sum(e.Payload))
				if got != want[i] {
					t.Errorf("datagram %d:\ngot  %s\nwant %s", i, got, want[i])
				}
			}
			wantDropped(t, s.count, nil)
		})
	}
}

func TestHEPUDP_takesHostilePacketsOneByOne(t *testing.T) {
	whole := good(t, message)
	chunkOfNothing := append([]byte(nil), whole...)
	binary.BigEndian.PutUint16(chunkOfNothing[10:], 0) // the length of the first chunk
	noLength := append([]byte(nil), whole...)
	binary.BigEndian.PutUint16(noLength[4:], 5)
	bad := []struct {
		name string
		b    []byte
		want drop
	}{
		{"nothing", []byte{}, dropEmpty},
		{"one byte", []byte{'H'}, dropTruncated},
		{"SIP", []byte(message), dropNotHEP},
		{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), dropNotHEP},
		{"noise", []byte(strings.Repeat("\xff", 1400)), dropNotHEP},
		{"a total of 5", noLength, dropLength},
		{"a chunk of length 0", chunkOfNothing, dropChunk},
		{"cut before the payload ends", whole[:len(whole)-1], dropTruncated},
		{"cut in the head", whole[:5], dropTruncated},
		{"no payload", packet(t, "", func(p *hep.Packet) { p.Payload = nil }), dropNoPayload},
		{"an empty payload", packet(t, "", nil), dropNoPayload},
		{"HEP1 of an unknown family", []byte("\x01\x10\x63\x11 and so on and so on"), dropFamily},
		{"HEP2 cut", []byte("\x02\x10\x02\x11\x13\xc4\x13\xc4\x7f\x00\x00\x01\x7f\x00\x00\x01\x00"), dropTruncated},
		{"a payload that does not inflate", packet(t, "", func(p *hep.Packet) {
			p.Payload, p.CompressedPayload = nil, []byte("\x1f\x8bnonsense")
		}), dropInflate},
	}
	s := listenUDP(t, HEPOptions{})
	in := newInbox()
	stop := start(t, s, in)
	conn := dial(t, s)
	want := map[drop]int{}
	names := []string{"first"}
	send(t, conn, good(t, "first"))
	for _, b := range bad {
		send(t, conn, b.b, good(t, b.name))
		want[b.want]++
		names = append(names, b.name)
	}
	if got := payloads(in.wait(t, len(bad)+1)); got != strings.Join(names, " ") {
		t.Errorf("the good ones are %q, want %q", got, names)
	}
	stop() // what the sink has taken is counted when it has taken it
	wantDropped(t, s.count, want)
	if n := int(testutil.ToFloat64(s.count.packets)); n != 2*len(bad)+1 {
		t.Errorf("%d packets counted, want %d", n, 2*len(bad)+1)
	}
	if n := int(testutil.ToFloat64(s.count.events)); n != len(bad)+1 {
		t.Errorf("%d events counted, want %d", n, len(bad)+1)
	}
}

func TestHEPUDP_overlooksWhatAgentsDoWrong(t *testing.T) {
	wide := packet(t, "wide", func(p *hep.Packet) { p.Clear(hep.FieldVLAN) })
	wide = hep.AppendChunk(wide, 0, hep.ChunkVLAN, []byte{42}) // one byte, as in old revisions
	if err := hep.PatchLength(wide); err != nil {
		t.Fatal(err)
	}
	s := listenUDP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	send(t, dial(t, s),
		append(good(t, "trailing"), "bytes behind the packet"...), wide,
		packet(t, "v4", func(p *hep.Packet) { p.Type = hep.TypeLog }),
		[]byte("\x01\x10\x02\x11\x13\xc4\x13\xce\x7f\x00\x00\x01\x7f\x00\x00\x02nul\x00\x00\x00\x00\x00\x00\x00\x00"))
	events := in.wait(t, 4)
	if got := payloads(events); got != "trailing wide v4 nul" {
		t.Errorf("got %q", got)
	}
	if events[1].VLAN != 42 || events[2].Type != trace.TypeLog {
		t.Errorf("got VLAN %d and type %d, want 42 and 100", events[1].VLAN, events[2].Type)
	}
	wantDropped(t, s.count, nil)
}

func TestHEPUDP_keepsPacketsOfABatchApart(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	conn := dial(t, s)
	var want []string
	for i := range batchSize {
		payload := fmt.Sprintf("packet-%d", i)
		want = append(want, payload)
		send(t, conn, packet(t, payload, func(p *hep.Packet) {
			// Chunks on both sides of the payload: what the decoder has to put together.
			p.Extra = hep.AppendChunk(nil, 0, hep.ChunkTOS, []byte{byte(i)})
			p.Private = hep.AppendChunk(nil, 99, 1, []byte(payload))
			if i%2 == 1 {
				p.CompressedPayload, p.Payload = deflate(t, payload), nil
			}
		}))
	}
	in := newInbox()
	start(t, s, in)
	events := in.wait(t, batchSize)
	if got := payloads(events); got != strings.Join(want, " ") {
		t.Errorf("got %q", got)
	}
	for i, e := range events {
		chunks := hep.AppendChunk(nil, 0, hep.ChunkTOS, []byte{byte(i)})
		if chunks = hep.AppendChunk(chunks, 99, 1, []byte(want[i])); string(e.Chunks) != string(chunks) {
			t.Errorf("event %d has chunks %x, want %x", i, e.Chunks, chunks)
		}
	}
}

func TestHEPUDP_takesNoOrdersFromStrangers(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	order := hep.AppendChunk(nil, hep.VendorSiptrace, 0x0101, []byte("what to do with it"))
	theirs := hep.AppendChunk(nil, hep.VendorGenesys, hep.GenesysSiteID, []byte("site"))
	send(t, dial(t, s), packet(t, message, func(p *hep.Packet) {
		p.Extra, p.Private = append(append([]byte(nil), order...), theirs...), order
	}))
	if got := in.wait(t, 1)[0].Chunks; string(got) != string(theirs) {
		t.Errorf("got chunks %q, want %q", got, theirs)
	}
}

func TestHEPUDP_asksForTheKey(t *testing.T) {
	s := listenUDP(t, HEPOptions{Auth: "secret"})
	in := newInbox()
	start(t, s, in)
	with := func(key string) []byte {
		return packet(t, "with-"+key, func(p *hep.Packet) { p.AuthKey = []byte(key) })
	}
	send(t, dial(t, s), good(t, "without"), with("wrong"), with("secret2"), with("secret"), with("secre"), with("secret"))
	if got := payloads(in.wait(t, 2)); got != "with-secret with-secret" {
		t.Errorf("got %q", got)
	}
	wantDropped(t, s.count, map[drop]int{dropAuth: 4})
}

func TestHEPUDP_writesOnceForARead(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	conn := dial(t, s)
	for range 100 { // they wait in the socket
		send(t, conn, good(t, "x"))
	}
	in := newInbox()
	stop := start(t, s, in)
	in.wait(t, 100)
	stop()
	if len(in.writes) != 2 || in.writes[0] != batchSize {
		t.Errorf("writes of %v events, want %d and the rest", in.writes, batchSize)
	}
}

func TestHEPUDP_countsWhatTheKernelDrops(t *testing.T) {
	s := listenUDP(t, HEPOptions{RcvBuf: 1 << 16})
	conn := dial(t, s)
	sent := 0
	sending := func(payload string) {
		send(t, conn, good(t, payload))
		sent++
	}
	for range 1000 { // of more than a kilobyte: the socket holds no such number
		sending(strings.Repeat("x", 1000))
	}
	in := newInbox()
	start(t, s, in)
	arrived := func(payload string) bool {
		events := in.wait(t, 1)
		return string(events[len(events)-1].Payload) == payload
	}
	for !arrived("again") { // while the socket is full this is dropped, too
		sending("again")
		select {
		case <-in.changed:
		case <-time.After(10 * time.Millisecond):
		}
	}
	sending("last") // with it the kernel tells what it has dropped before
	for !arrived("last") {
		<-in.changed
	}
	events, kernel := len(in.wait(t, 1)), dropped(s.count, dropKernel)
	if kernel == 0 || kernel+events != sent {
		t.Errorf("%d dropped and %d events, want %d in all", kernel, events, sent)
	}
}

func TestHEPUDP_wantsAsMuchBufferAsItIsTold(t *testing.T) {
	var log words
	s, err := ListenHEPUDP("127.0.0.1:0", HEPOptions{RcvBuf: 1 << 30}, prometheus.NewRegistry(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := growRcvBuf(s.conn, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if said := strings.Contains(log.String(), "net.core.rmem_max=1073741824"); said != (got < 1<<30) {
		t.Errorf("got %d of %d bytes, and the log says %q", got, 1<<30, log.String())
	}
}

func TestHEPUDP_takesIPv4AndIPv6OnOneSocket(t *testing.T) {
	var log words
	s, err := ListenHEPUDP(":0", HEPOptions{}, prometheus.NewRegistry(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	in := newInbox()
	stop := start(t, s, in)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.Addr().String(), "[::]"), ":")
	want := 0
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		conn, err := dialUDP(host + ":" + port)
		if err != nil {
			t.Logf("no %s here: %v", host, err)
			continue
		}
		defer conn.Close()
		send(t, conn, []byte("no HEP"), good(t, host))
		want++
	}
	in.wait(t, want)
	stop()
	if want == 2 && !strings.Contains(log.String(), "from=127.0.0.1:") && !strings.Contains(log.String(), "from=[::1]:") {
		t.Errorf("the log does not say who sent what is wrong: %s", log.String())
	}
	if strings.Contains(log.String(), "ffff") {
		t.Errorf("the log has an IPv4 address in IPv6 clothes: %s", log.String())
	}
}

func TestHEPUDP_goesOnWhenTheSinkRefuses(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	in := newInbox()
	refuse := errors.New("full")
	start(t, s, trace.SinkFunc(func(ctx context.Context, events []trace.Event) error {
		if string(events[0].Payload) == "refused" {
			return refuse
		}
		return in.Write(ctx, events)
	}))
	conn := dial(t, s)
	send(t, conn, good(t, "one"))
	in.wait(t, 1)
	send(t, conn, good(t, "refused"))
	for dropped(s.count, dropSink) == 0 {
		time.Sleep(time.Millisecond)
	}
	send(t, conn, good(t, "two"))
	if got := payloads(in.wait(t, 2)); got != "one two" {
		t.Errorf("got %q", got)
	}
	wantDropped(t, s.count, map[drop]int{dropSink: 1})
}

func TestHEPUDP_endsWhenItIsClosed(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	in := newInbox()
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context(), in) }()
	send(t, dial(t, s), good(t, "x"))
	in.wait(t, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestHEPUDP_runsNotAtAllWhenItsContextIsDone(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, newInbox()); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestListenHEPUDP_saysWhatIsInTheWay(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	for _, addr := range []string{s.Addr().String(), "127.0.0.1:nonsense", "192.0.2.1:9060"} {
		if _, err := ListenHEPUDP(addr, HEPOptions{}, prometheus.NewRegistry(), quiet()); err == nil || !strings.Contains(err.Error(), strings.Split(addr, ":")[0]) {
			t.Errorf("%s: got %v, want an error that names it", addr, err)
		}
	}
}

func TestListenHEPUDP_sharesARegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 3 {
		s, err := ListenHEPUDP("127.0.0.1:0", HEPOptions{}, reg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if n, err := testutil.GatherAndCount(reg, "siptrace_tap_hep_packets_total"); n != 3 || err != nil {
		t.Errorf("%d sources in the metrics, %v, want 3", n, err)
	}
}
