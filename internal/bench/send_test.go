package bench_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/bench"
)

// sink starts a sink and returns its URL and its result.
func sink(t *testing.T, listen string) (url string, result <-chan *bench.SinkResult) {
	t.Helper()
	r, w := io.Pipe()
	out := make(chan *bench.SinkResult, 1)
	go func() {
		defer close(out)
		got, err := bench.Sink(t.Context(), bench.SinkOptions{Listen: listen, Duration: time.Minute, Idle: time.Second}, w)
		if err != nil {
			t.Error(err)
		}
		w.Close()
		out <- got
	}()
	line := make([]byte, 200)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	_, url, _ = strings.Cut(strings.TrimSpace(string(line[:n])), "listening at ")
	return url, out
}

func TestSend_arrivesAtSink(t *testing.T) {
	for scheme, want := range map[string]uint64{
		"hep+udp": 100, // a socket has room for so many, however late they are taken from it
		"hep+tcp": 2000,
	} {
		t.Run(scheme, func(t *testing.T) {
			url, result := sink(t, scheme+"://127.0.0.1:0")
			sent, err := bench.Send(t.Context(), bench.SendOptions{To: url, Rate: int(5 * want), Duration: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if got := <-result; sent.Sent != want || got.Events != want {
				t.Errorf("sent %d, arrived %d, want %d", sent.Sent, got.Events, want)
			}
		})
	}
}

func TestSend_interruptedTellsWhatWasSent(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	arrived := make(chan struct{}, 1<<20)
	go func() {
		for b := make([]byte, 1<<16); ; arrived <- struct{}{} {
			if _, _, err := c.ReadFrom(b); err != nil {
				return
			}
			cancel() // in the middle of it
		}
	}()
	sent, err := bench.Send(ctx, bench.SendOptions{To: "hep+udp://" + c.LocalAddr().String(), Rate: 300, Duration: time.Hour})
	if err != nil || sent.Sent == 0 {
		t.Fatalf("sent %d, %v", sent.Sent, err)
	}
	for n := range sent.Sent {
		select {
		case <-arrived:
		case <-time.After(time.Minute):
			t.Fatalf("sent %d, arrived %d", sent.Sent, n)
		}
	}
}

func TestSend_errors(t *testing.T) {
	for name, o := range map[string]bench.SendOptions{
		"no rate":        {To: "hep+udp://127.0.0.1:9", Duration: time.Second},
		"no time":        {To: "hep+udp://127.0.0.1:9", Rate: 1},
		"no URL":         {To: "127.0.0.1:9060", Rate: 1, Duration: time.Second},
		"unknown scheme": {To: "sip://127.0.0.1:5060", Rate: 1, Duration: time.Second},
		"nobody listens": {To: "hep+tcp://127.0.0.1:1", Rate: 1, Duration: time.Second},
		"nobody, by UDP": {To: "hep+udp://127.0.0.1:1", Rate: 1000, Duration: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := bench.Send(t.Context(), o); err == nil {
				t.Error("no error")
			}
		})
	}
}
