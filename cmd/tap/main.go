// Command tap captures SIP messages and publishes them to NATS JetStream.
package main

import (
	"os"

	"github.com/seed-452fa805/siptrace/internal/app"
)

const description = `Capture traced SIP messages and publish them to NATS JetStream.

Examples:
  tap --in hep+udp://:9060 --nats nats://10.0.0.2:4222
  tap --in "hep+tls://:9061?cert=tap.crt&key=tap.key" --agent-name edge1
  tap --in pcap:capture.pcapng --once`

func main() {
	os.Exit(app.Main("tap", description, new(app.TapOptions), os.Args[1:], os.Stdout, os.Stderr))
}
