package ctl

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/demo"
)

// DemoCmd is ctl demo.
type DemoCmd struct {
	To string `arg:"" optional:"" help:"A tap that listens for HEP: hep+udp://HOST:PORT or hep+tcp://HOST:PORT." default:"hep+udp://127.0.0.1:9060" placeholder:"URL"`
}

// Run sends the demonstration's calls and says what to look at.
func (c *DemoCmd) Run(env *Env) error {
	scheme, addr, ok := strings.Cut(c.To, "://")
	network, known := map[string]string{"hep+udp": "udp", "hep+tcp": "tcp"}[scheme]
	if !ok || !known {
		return app.Usagef("demo: %q: use hep+udp://HOST:PORT or hep+tcp://HOST:PORT", c.To)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), "9060")
	}
	conn, err := net.DialTimeout(network, addr, 3*time.Second)
	if err != nil {
		return fmt.Errorf("no tap at %s: %w; start one with: %s up", c.To, err, self())
	}
	defer conn.Close()

	now := time.Now()
	calls := demo.Calls(now, strconv.FormatInt(now.Unix(), 36))
	sent := 0
	for _, call := range calls {
		for i := range call.Messages {
			b, err := call.Messages[i].AppendHEP(nil)
			if err != nil {
				return err
			}
			if _, err := conn.Write(b); err != nil {
				return fmt.Errorf("no tap at %s: %w; start one with: %s up", c.To, err, self())
			}
			sent++
			// A datagram to a port that nobody has opened comes back as an
			// error of the next one.
			if network == "udp" && sent == 1 {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	fmt.Fprintf(env.Stdout, "sent %d messages of %d calls to %s\n\n", sent, len(calls), c.To)
	for _, call := range calls {
		fmt.Fprintf(env.Stdout, "  %s flow %-36s %s\n", self(), call.ID, call.What)
	}
	fmt.Fprintf(env.Stdout, "  %s search --since 1m\n", self())
	return nil
}
