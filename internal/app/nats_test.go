package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/internal/forward"
)

// The example of an administrator's configuration speaks of a destination and
// its consumer: they must be each other's.
func TestExampleServer_namesTheDurableOfItsDestination(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nats", "nats-server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	const to = "hep+udp://10.0.0.5:9060"
	d, err := forward.ParseDestination(to)
	if err != nil {
		t.Fatal(err)
	}
	name := durableOf(d)
	for _, want := range []string{
		"--to " + to,
		`"siptrace.v1.rejects.` + name + `"`,
		`"$JS.API.CONSUMER.INFO.SIPTRACE.` + name + `"`,
		`"$JS.API.CONSUMER.MSG.NEXT.SIPTRACE.` + name + `"`,
		`"$JS.ACK.SIPTRACE.` + name + `.>"`,
		`"$JS.ACK.*.*.SIPTRACE.` + name + `.>"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in the example", want)
		}
	}
}
