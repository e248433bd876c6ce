package sipgotap

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// tlsFiles name what a TLS connection needs, in PEM. They are read again for
// each connection, so that certificates may be renewed.
type tlsFiles struct {
	ca, cert, key string // each may be empty
	serverName    string
}

// set sets an option by its name, and reports whether there is one.
func (f *tlsFiles) set(name, value string) bool {
	to := map[string]*string{"ca": &f.ca, "cert": &f.cert, "key": &f.key, "server-name": &f.serverName}[name]
	if to != nil {
		*to = value
	}
	return to != nil
}

// config reads the files.
func (f *tlsFiles) config() (*tls.Config, error) {
	c := &tls.Config{ServerName: f.serverName, MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities %s: no certificate in PEM", f.ca)
		}
	}
	if f.cert == "" && f.key == "" {
		return c, nil
	}
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %q with key %q: %w", f.cert, f.key, err)
	}
	c.Certificates = []tls.Certificate{cert}
	return c, nil
}
