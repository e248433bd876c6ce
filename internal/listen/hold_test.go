package listen

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/hep"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// heap is what is in use.
func heap() int {
	runtime.GC()
	runtime.GC() // the first leaves what pools hold
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// bomb is a packet of a kilobyte that inflates to a megabyte.
func bomb(t testing.TB) []byte {
	return packet(t, "", func(p *hep.Packet) {
		p.Payload, p.CompressedPayload = nil, deflate(t, strings.Repeat("x", 1<<20-1))
	})
}

func TestHEPTCP_holdsLittleForASilentConnection(t *testing.T) {
	const conns, most = 50, 128 << 10
	timeless := packet(t, message, func(p *hep.Packet) {
		*p = hep.Packet{Version: 3, Protocol: p.Protocol, Type: p.Type, Src: p.Src, Dst: p.Dst, Payload: p.Payload}
	})
	for name, b := range map[string][]byte{"without time": timeless, "inflated": bomb(t)} {
		t.Run(name, func(t *testing.T) {
			for _, auth := range []string{"", "another"} {
				s, _ := listenTCP(t, HEPOptions{Auth: auth, Guard: NewGuard(nil)})
				var events atomic.Int64
				stop := start(t, s, trace.SinkFunc(func(_ context.Context, e []trace.Event) error {
					events.Add(int64(len(e)))
					return nil
				}))
				before := heap()
				for range conns {
					conn := dial(t, s)
					send(t, conn, b, good(t, message)) // the second has the first let go
				}
				eventually(t, func() bool { return int(events.Load())+dropped(s.count, dropAuth) >= 2*conns })
				eventually(t, func() bool { return (heap()-before)/conns < most })
				stop()
			}
		})
	}
}

func TestHEPUDP_holdsNoMoreThanAFewInflatedPackets(t *testing.T) {
	s := listenUDP(t, HEPOptions{})
	conn, b := dial(t, s), bomb(t)
	for range 20 {
		send(t, conn, b) // all of one read
	}
	events, most := 0, 0
	done := make(chan struct{})
	start(t, s, trace.SinkFunc(func(_ context.Context, e []trace.Event) error {
		most = max(most, len(s.in.scratch))
		if events += len(e); events == 20 {
			close(done)
		}
		return nil
	}))
	<-done
	if most > 1<<20+fullScratch {
		t.Errorf("a batch held %d bytes", most)
	}
}

func TestHEPTCP_countsAPacketThatAResetCutsShort(t *testing.T) {
	s, _ := listenTCP(t, HEPOptions{})
	in := newInbox()
	start(t, s, in)
	conn, b := dial(t, s).(*net.TCPConn), good(t, message)
	send(t, conn, b, b[:len(b)/2])
	in.wait(t, 1)
	_ = conn.SetLinger(0)
	_ = conn.Close()
	eventually(t, func() bool { return dropped(s.count, dropTruncated) == 1 })
}

// For the race detector.
func TestHEPTLS_endsInTheMiddleOfAHandshake(t *testing.T) {
	files := newTLS(t)
	conf := client(t, files, nil)
	for range 30 {
		s, _ := listenTLS(t, files)
		stop := start(t, s, newInbox())
		conn, err := tls.Dial("tcp", s.Addr().String(), conf)
		if err != nil {
			t.Fatal(err)
		}
		stop()
		_ = conn.Close()
	}
}

func TestHEPUDP_takesWhatHasComeBeforeItEnds(t *testing.T) {
	const n = 150 // several reads, and a socket has room for them where the system allows no more than 208 KiB
	s := listenUDP(t, HEPOptions{})
	conn := dial(t, s)
	for range n {
		send(t, conn, good(t, message))
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := 0
	err := s.Run(ctx, trace.SinkFunc(func(_ context.Context, e []trace.Event) error {
		got += len(e)
		cancel()
		return nil
	}))
	if runtime.GOOS == "linux" && got != n || err != nil {
		t.Errorf("got %d events, %v, want all %d that were there", got, err, n)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
