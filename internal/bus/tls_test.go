package bus_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/testcert"
)

// strictServer runs a server that lets in only who has the right key and,
// over TLS, a certificate.
func strictServer(t *testing.T, own testcert.Pair, user string) string {
	t.Helper()
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		TLS: true, TLSTimeout: 5, Nkeys: []*server.NkeyUser{{Nkey: user}},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{own.Load(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: own.Roots(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(quick) {
		t.Fatal("server not ready")
	}
	return "tls://" + ns.Addr().String()
}

func TestConnect_showsItsKeyAndItsCertificate(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	seedFile := filepath.Join(t.TempDir(), "user.nk")
	if err := os.WriteFile(seedFile, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	own := testcert.New(t)
	url := strictServer(t, own, public)

	try := func(o bus.Options) *bus.Conn {
		t.Helper()
		o.URL, o.Name = url, "tap"
		c, err := bus.Connect(o, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	all := bus.Options{CA: own.Cert, Cert: own.Cert, Key: own.Key, NKeySeed: seedFile}
	good := try(all)
	eventually(t, "connected", func() bool { return good.Check(t.Context()) == nil })

	for name, tt := range map[string]struct {
		o    bus.Options
		want string
	}{
		"without roots":       {bus.Options{Cert: own.Cert, Key: own.Key, NKeySeed: seedFile}, "certificate"},
		"without certificate": {bus.Options{CA: own.Cert, NKeySeed: seedFile}, url + ": "}, // the server may hang up before it says why
		"without key":         {bus.Options{CA: own.Cert, Cert: own.Cert, Key: own.Key}, "authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			c := try(tt.o)
			eventually(t, "the check says "+tt.want, func() bool {
				err := c.Check(t.Context())
				return err != nil && strings.Contains(strings.ToLower(err.Error()), tt.want)
			})
		})
	}
}
