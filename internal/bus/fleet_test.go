package bus_test

import (
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

func TestFleet_isOneForAllWhoShareABus(t *testing.T) {
	here, there := startServer(t, t.TempDir(), "127.0.0.1:0"), startServer(t, t.TempDir(), "127.0.0.1:0")
	fleet := func(url, name string) string {
		t.Helper()
		c := connect(t, url, name)
		ensure(t, c, bus.StreamConfig{})
		got, err := c.Fleet(t.Context())
		if err != nil || got == "" {
			t.Fatalf("Fleet = %q, %v, want one", got, err)
		}
		return got
	}
	tap, forwarder, other := fleet(here.ClientURL(), "tap"), fleet(here.ClientURL(), "forwarder"), fleet(there.ClientURL(), "tap")
	if tap != forwarder {
		t.Errorf("%s and %s on one bus, want one", tap, forwarder)
	}
	if tap == other {
		t.Errorf("two buses are both %s", tap)
	}
}

func TestFleet_saysWhatIsMissing(t *testing.T) {
	c := connect(t, startServer(t, t.TempDir(), "127.0.0.1:0").ClientURL(), "tap")
	if got, err := c.Fleet(t.Context()); err == nil {
		t.Errorf("Fleet = %q without a bucket, want an error", got)
	}
}
