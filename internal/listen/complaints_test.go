package listen

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestComplaints_speakOnceASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log words
		c := newComplaints(log.logger(), "trouble")
		lines := func() int { return strings.Count(log.String(), "\n") }
		from := netip.MustParseAddrPort("192.0.2.9:1234")

		c.add("first", from, errors.New("why"))
		if lines() != 1 || !strings.Contains(log.String(), `msg=trouble count=1 reason=first from=192.0.2.9:1234 err=why`) {
			t.Fatalf("the first is not spoken of at once: %q", log.String())
		}
		for range 1000 {
			c.add("more", from, nil)
			time.Sleep(999 * time.Microsecond) // nearly a second in all
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if lines() != 2 || !strings.Contains(log.String(), "count=1000 reason=more from=192.0.2.9:1234\n") {
			t.Fatalf("after a second: %q", log.String())
		}
		c.add("most", netip.AddrPort{}, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if lines() != 3 || !strings.HasSuffix(log.String(), "count=1 reason=most\n") {
			t.Fatalf("after two: %q", log.String())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if lines() != 3 {
			t.Fatalf("speaks of nothing: %q", log.String())
		}
		c.add("again", from, nil)
		if lines() != 4 {
			t.Fatalf("after a silence: %q", log.String())
		}
		c.add("rest", from, nil)
		c.flush()
		if lines() != 5 || !strings.Contains(log.String(), "count=1 reason=rest") {
			t.Fatalf("the rest is not spoken of: %q", log.String())
		}
	})
}
