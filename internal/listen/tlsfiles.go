package listen

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSFiles name what a TLS listener needs, in PEM. With CA only clients with
// a certificate of one of these authorities are let in.
type TLSFiles struct {
	Cert, Key string
	CA        string // optional
}

// config reads the files.
func (f TLSFiles) config() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if f.CA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("client authorities: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client authorities %s: no certificate in PEM", f.CA)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}

// stamp tells one state of the files from another.
func (f TLSFiles) stamp() string {
	var s []byte
	for _, name := range []string{f.Cert, f.Key, f.CA} {
		if info, err := os.Stat(name); err == nil {
			s = fmt.Appendf(s, "%d/%d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	return string(s)
}

// checkEvery is how often files are looked at, at the most.
const checkEvery = time.Second

// reloader gives out the configuration that is in the files now. Files that
// are no good leave the last good ones in force.
type reloader struct {
	files TLSFiles
	log   *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   string
	config  *tls.Config
}

// newReloader reads the files, which must be good.
func newReloader(files TLSFiles, log *slog.Logger) (*reloader, error) {
	r := &reloader{files: files, log: log, checked: time.Now(), stamp: files.stamp()}
	var err error
	r.config, err = files.config()
	return r, err
}

// base is the configuration of a listener that asks r at every handshake.
func (r *reloader) base() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}
}

// current is what the files say, looked at once a second at the most.
func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) < checkEvery {
		return r.config
	}
	r.checked = time.Now()
	stamp := r.files.stamp()
	if stamp == r.stamp {
		return r.config
	}
	r.stamp = stamp
	config, err := r.files.config()
	if err != nil {
		r.log.Warn("changed certificate not taken, the old one stays", "err", err)
		return r.config
	}
	r.log.Info("certificate reloaded", "cert", r.files.Cert)
	r.config = config
	return r.config
}
