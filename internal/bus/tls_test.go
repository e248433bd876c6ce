package bus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// certificate writes a certificate for 127.0.0.1 that is its own root, and its
// key, and returns the names of the files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
}

// strictServer runs a server that lets in only who has the right key and,
// over TLS, a certificate.
func strictServer(t *testing.T, certFile, keyFile, user string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		TLS: true, TLSTimeout: 5, Nkeys: []*server.NkeyUser{{Nkey: user}},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots},
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
	certFile, keyFile := certificate(t)
	url := strictServer(t, certFile, keyFile, public)

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
	all := bus.Options{CA: certFile, Cert: certFile, Key: keyFile, NKeySeed: seedFile}
	good := try(all)
	eventually(t, "connected", func() bool { return good.Check(t.Context()) == nil })

	for name, tt := range map[string]struct {
		o    bus.Options
		want string
	}{
		"without roots":       {bus.Options{Cert: certFile, Key: keyFile, NKeySeed: seedFile}, "certificate"},
		"without certificate": {bus.Options{CA: certFile, NKeySeed: seedFile}, url + ": "}, // the server may hang up before it says why
		"without key":         {bus.Options{CA: certFile, Cert: certFile, Key: keyFile}, "authorization"},
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
