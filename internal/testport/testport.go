// Package testport finds ports for tests.
package testport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// handedOut are the addresses that tests have been given.
var handedOut sync.Map

// Addr returns an address of the loopback, 127.0.0.1:PORT, that nobody uses, for
// UDP and TCP, another one each time. Its port is one of n from first on. These
// should be below those that the system picks by itself, so that nobody takes it
// before it is used, or while a server is away; and others for each package, for
// packages are tested side by side.
func Addr(tb testing.TB, first, n int) string {
	tb.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(n))
		if _, taken := handedOut.LoadOrStore(addr, true); taken {
			continue
		}
		udp, err := net.ListenPacket("udp4", addr)
		if err != nil {
			continue
		}
		tcp, err := net.Listen("tcp4", addr)
		_ = udp.Close()
		if err != nil {
			continue
		}
		_ = tcp.Close()
		return addr
	}
	tb.Fatal("no free port")
	return ""
}
