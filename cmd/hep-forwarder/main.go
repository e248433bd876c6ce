// Command hep-forwarder sends traced SIP messages to HEP collectors and, as
// plain SIP, to whoever wants duplicates.
package main

import (
	"os"

	"github.com/seed-452fa805/siptrace/internal/app"
)

const description = `Send traced SIP messages from NATS JetStream to HEP collectors and SIP duplicates.

Each destination is read for by itself: one that is away neither delays nor loses for the others, and is filled afterwards.

Examples:
  hep-forwarder --to hep+udp://homer:9060
  hep-forwarder --to "hep+tls://homer:9061?ca=ca.crt&auth=KEY" --to "hep+udp://old-homer:9060?version=2"
  hep-forwarder --to sip:10.1.1.1:5888`

func main() {
	os.Exit(app.Main("hep-forwarder", description, new(app.ForwarderOptions), os.Args[1:], os.Stdout, os.Stderr))
}
