package app

import (
	"testing"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/forward"
)

func TestDurableOf_fitsAndTellsDestinationsApart(t *testing.T) {
	seen := make(map[string]string)
	for _, url := range []string{
		"hep+udp://h", "hep+udp://127.0.0.1:65535", "hep+udp://192.168.100.200:9060", "hep+udp://192.168.100.200:9061",
		"hep+udp://192.168.100.201:9060", "hep+udp://[2001:db8:1:2:3:4:5:6]:9060", "hep+tls://collector-1.example.com:9061",
		"hep+tls://collector-2.example.com:9061", "hep+tcp://collector-1.example.com:9061", "sip:collector-1.example.com",
	} {
		d, err := forward.ParseDestination(url)
		if err != nil {
			t.Fatal(err)
		}
		name := durableOf(d)
		if name != bus.Token(name) {
			t.Errorf("%s is read for by %q, which is no durable's name", url, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both read for by %s", url, other, name)
		}
		seen[name] = url
	}
}
