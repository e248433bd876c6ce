package listen

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/seed-452fa805/siptrace/internal/testcert"
)

// newTLS writes a certificate of its own authority, and its key.
func newTLS(t testing.TB) TLSFiles {
	t.Helper()
	p := testcert.New(t)
	return TLSFiles{Cert: p.Cert, Key: p.Key}
}

// pair is the certificate of files.
func pair(files TLSFiles) testcert.Pair { return testcert.Pair{Cert: files.Cert, Key: files.Key} }

// client trusts the certificate of a server, and shows its own if it has one.
func client(t testing.TB, server TLSFiles, own *TLSFiles) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: pair(server).Roots(t), ServerName: "127.0.0.1"}
	if own != nil {
		c.Certificates = []tls.Certificate{pair(*own).Load(t)}
	}
	return c
}

func dialTLS(t testing.TB, s Listener, server TLSFiles, own *TLSFiles) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Addr().String(), client(t, server, own))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// listenTLS opens a TLS source on the loopback, with a log.
func listenTLS(t testing.TB, files TLSFiles) (*HEPTCP, *words) {
	t.Helper()
	log := new(words)
	s, err := ListenHEPTLS("127.0.0.1:0", files, HEPOptions{}, prometheus.NewRegistry(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, log
}

func TestHEPTLS_takesPackets(t *testing.T) {
	files := newTLS(t)
	s, _ := listenTLS(t, files)
	in := newInbox()
	start(t, s, in)
	conn := dialTLS(t, s, files, nil)
	send(t, conn, good(t, "one"), append(good(t, "two"), good(t, "three")...))
	if got := payloads(in.wait(t, 3)); got != "one two three" {
		t.Errorf("got %q", got)
	}
}

func TestHEPTLS_refusesAgentsWithoutTLS(t *testing.T) {
	files := newTLS(t)
	s, log := listenTLS(t, files)
	in := newInbox()
	start(t, s, in)
	plain := dial(t, s)
	send(t, plain, good(t, "plain"))
	_ = plain.SetReadDeadline(time.Now().Add(20 * time.Second))
	for b := make([]byte, 100); ; { // an alert, and the end
		if _, err := plain.Read(b); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Fatal("the connection stays open")
			}
			break
		}
	}
	if testutil.ToFloat64(s.conns.refused) != 1 || !strings.Contains(log.String(), "reason=handshake") {
		t.Errorf("%v refused, and the log says %q", testutil.ToFloat64(s.conns.refused), log.String())
	}
	send(t, dialTLS(t, s, files, nil), good(t, "secure"))
	if got := payloads(in.wait(t, 1)); got != "secure" {
		t.Errorf("got %q", got)
	}
}

func TestHEPTLS_asksForCertificatesOfItsAuthority(t *testing.T) {
	files, own, foreign := newTLS(t), newTLS(t), newTLS(t)
	files.CA = own.Cert
	s, log := listenTLS(t, files)
	in := newInbox()
	start(t, s, in)
	for name, cert := range map[string]*TLSFiles{"none": nil, "foreign": &foreign} {
		conn, err := tls.Dial("tcp", s.Addr().String(), client(t, files, cert))
		if err == nil { // TLS 1.3 tells with the first read
			_, _ = conn.Write(good(t, name))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil {
			t.Errorf("%s certificate is good enough", name)
		}
	}
	send(t, dialTLS(t, s, files, &own), good(t, "own"))
	if got := payloads(in.wait(t, 1)); got != "own" {
		t.Errorf("got %q", got)
	}
	for end := time.Now().Add(20 * time.Second); testutil.ToFloat64(s.conns.refused) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("fewer than 2 refused: %s", log.String())
		}
	}
}

func TestHEPTLS_givesUpASilentHandshake(t *testing.T) {
	files := newTLS(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := listenTLS(t, files)
		began := time.Now()
		_, done := pipe(t, s, newInbox())
		<-done
		if took := time.Since(began); took != defaultFrameTimeout {
			t.Errorf("a handshake had %v, want %v", took, defaultFrameTimeout)
		}
		s.bad.flush()
	})
}

func TestReloader_takesChangedFiles(t *testing.T) {
	files := newTLS(t)
	synctest.Test(t, func(t *testing.T) {
		log := new(words)
		r, err := newReloader(files, log.logger())
		if err != nil {
			t.Fatal(err)
		}
		serial := func() int64 {
			cert, err := x509.ParseCertificate(r.current().Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return cert.SerialNumber.Int64()
		}
		later := func() {
			time.Sleep(checkEvery)
			stamp := time.Now()
			for _, name := range []string{files.Cert, files.Key} {
				if err := os.Chtimes(name, stamp, stamp); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := serial(); got != 1 {
			t.Fatalf("serial %d, want 1", got)
		}
		pair(files).Renew(t, 2)
		later()
		if got := serial(); got != 2 {
			t.Errorf("after a change serial %d, want 2", got)
		}
		if err := os.WriteFile(files.Key, []byte("half of it"), 0o600); err != nil {
			t.Fatal(err)
		}
		later()
		if got := serial(); got != 2 || !strings.Contains(log.String(), "the old one stays") {
			t.Errorf("after a bad change serial %d, want 2 still; the log says %q", got, log.String())
		}
		pair(files).Renew(t, 3)
		later()
		if got := serial(); got != 3 {
			t.Errorf("after the next change serial %d, want 3", got)
		}
	})
}

func TestListenHEPTLS_saysWhatIsWrongWithItsFiles(t *testing.T) {
	good, other := newTLS(t), newTLS(t)
	for name, files := range map[string]TLSFiles{
		"no such certificate":  {Cert: "/no/such.crt", Key: good.Key},
		"the key of another":   {Cert: good.Cert, Key: other.Key},
		"no such authority":    {Cert: good.Cert, Key: good.Key, CA: "/no/such.ca"},
		"a key as authority":   {Cert: good.Cert, Key: good.Key, CA: good.Key},
		"nothing is there yet": {},
	} {
		_, err := ListenHEPTLS("127.0.0.1:0", files, HEPOptions{}, prometheus.NewRegistry(), quiet())
		if err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
}
