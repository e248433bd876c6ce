package bench

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for _, rate := range []int{1, 3, 7, 1000, 65_000, 999_983} {
		p := pace{start, rate}
		for _, n := range []uint64{0, 1, 2, 6, 64_999, 1 << 30, 1 << 32} {
			at := p.at(n)
			if got := p.due(at); got != n+1 {
				t.Errorf("rate %d: %d events are due when event %d is", rate, got, n)
			}
			if n > 0 && p.due(at.Add(-1)) > n {
				t.Errorf("rate %d: event %d is due before its time", rate, n)
			}
		}
		if got := p.due(start.Add(-1)); got != 0 {
			t.Errorf("rate %d: %d events are due before the start", rate, got)
		}
		day := 24 * time.Hour
		if got, want := p.total(day), uint64(rate)*86_400; got != want {
			t.Errorf("rate %d: total in a day = %d, want %d", rate, got, want)
		}
	}
}

// A tape is a sender that keeps what it is sent. takes says how many of the
// packets it takes this time.
type tape struct {
	packets [][]byte
	at      []time.Time
	calls   int
	takes   func(call, n int) (int, error)
}

func (s *tape) send(packets [][]byte) (int, error) {
	n, err := len(packets), error(nil)
	if s.takes != nil {
		n, err = s.takes(s.calls, n)
	}
	s.calls++
	for _, p := range packets[:n] {
		s.packets = append(s.packets, bytes.Clone(p))
		s.at = append(s.at, time.Now())
	}
	return n, err
}

func (s *tape) Close() error { return nil }

func traffic(t *testing.T) *Traffic {
	t.Helper()
	traffic, err := NewTraffic(1, 100, "bench")
	if err != nil {
		t.Fatal(err)
	}
	return traffic
}

func TestRun_sendsAtItsRate(t *testing.T) {
	for _, rate := range []int{7, 1000, 65_000} {
		synctest.Test(t, func(t *testing.T) {
			var s tape
			load, err := run(t.Context(), &s, traffic(t), rate, 2*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if want := uint64(2 * rate); load.Sent != want || len(s.packets) != 2*rate {
				t.Fatalf("rate %d: sent %d packets and said %d, want %d", rate, len(s.packets), load.Sent, want)
			}
			p := pace{load.started, rate}
			for i, at := range s.at {
				if late := at.Sub(p.at(uint64(i))); late < 0 || late > quantum {
					t.Fatalf("rate %d: packet %d was sent %v after it was due, want at most %v", rate, i, late, quantum)
				}
			}
			if load.Latest > quantum {
				t.Errorf("rate %d: said to be %v late, want at most %v", rate, load.Latest, quantum)
			}
			if most := 2*rate/max(1, rate/1000*9/10) + 1; s.calls > most {
				t.Errorf("rate %d: %d calls, want at most %d", rate, s.calls, most)
			}
		})
	}
}

func TestRun_catchesUpAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause = 300 * time.Millisecond
		s := tape{takes: func(call, n int) (int, error) {
			if call == 10 {
				time.Sleep(pause)
			}
			return n, nil
		}}
		load, err := run(t.Context(), &s, traffic(t), 10_000, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if load.Sent != 10_000 {
			t.Errorf("sent %d, want all 10,000", load.Sent)
		}
		if load.Latest < pause-2*quantum {
			t.Errorf("said to be %v late at most, want about %v", load.Latest, pause)
		}
	})
}

func TestRun_sendsEveryPacketOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := tape{takes: func(call, n int) (int, error) { return call % (n + 1), nil }} // some, often none
		load, err := run(t.Context(), &s, traffic(t), 5000, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		want, p := traffic(t), pace{load.started, 5000}
		size := 0
		for i, got := range s.packets {
			size += len(got)
			if !bytes.Equal(got, want.Append(nil, p.at(uint64(i)))) {
				t.Fatalf("packet %d is not the traffic's", i)
			}
		}
		if len(s.packets) != 5000 || load.Bytes != uint64(size) {
			t.Errorf("got %d packets of %d bytes, told %d bytes", len(s.packets), size, load.Bytes)
		}
	})
}

func TestRun_ends(t *testing.T) {
	t.Run("with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			load, err := run(ctx, &tape{}, traffic(t), 100, time.Hour)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error = %v, want %v", err, context.DeadlineExceeded)
			}
			if load.Sent != 100 && load.Sent != 101 || load.Took != time.Second {
				t.Errorf("sent %d in %v, want about 100 in 1s", load.Sent, load.Took)
			}
		})
	})
	t.Run("with an error of the sender", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			broken := errors.New("broken")
			s := tape{takes: func(int, int) (int, error) { return 0, broken }}
			if _, err := run(t.Context(), &s, traffic(t), 100, time.Hour); !errors.Is(err, broken) {
				t.Errorf("error = %v, want %v", err, broken)
			}
		})
	})
}
