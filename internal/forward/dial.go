package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// streamConn is a connection to a collector: what is read and written is what
// HEP is about, TLS or not, and tcp what is below.
type streamConn struct {
	net.Conn
	tcp         *tcpConn
	to          netip.AddrPort
	peer, local string
}

// tcpConn counts the bytes that the kernel took.
type tcpConn struct {
	*net.TCPConn
	raw     syscall.RawConn
	written atomic.Uint64
}

func (c *tcpConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written.Add(uint64(max(n, 0)))
	return n, err
}

// acknowledged is the position behind the last byte that the peer's kernel has
// acknowledged. It may be told too low, never too high.
func (c *tcpConn) acknowledged() (uint64, error) {
	written := c.written.Load() // before the question: what is written after it counts as waiting
	waiting, err := unacknowledged(c.raw)
	if err != nil {
		return 0, err
	}
	return written - min(waiting, written), nil
}

// dialStream connects to a collector. A name is looked up each time.
func dialStream(ctx context.Context, d Destination, o Options) (*streamConn, error) {
	dialer := net.Dialer{
		Resolver:        o.Resolver,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control: func(_, to string, raw syscall.RawConn) error {
			if addr, err := netip.ParseAddrPort(to); err == nil {
				if err := d.refused(o.Guard, addr); err != nil {
					return err
				}
			}
			return setUserTimeout(raw, o.WriteTimeout)
		},
	}
	if d.From.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.From.Addr(), 0))
	}
	conn, err := dialer.DialContext(ctx, "tcp", d.HostPort())
	if err != nil {
		return nil, err
	}
	below := &tcpConn{TCPConn: conn.(*net.TCPConn)}
	to := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	c := &streamConn{Conn: below, tcp: below, to: netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), peer: conn.RemoteAddr().String(), local: conn.LocalAddr().String()}
	below.raw, err = below.SyscallConn()
	if err == nil && d.Scheme == HEPTLS {
		c.Conn, err = handshake(ctx, below, d)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// handshake begins TLS on a connection. The files are read anew each time, so
// that a certificate may be renewed.
func handshake(ctx context.Context, below net.Conn, d Destination) (net.Conn, error) {
	config, err := tlsConfig(d)
	if err != nil {
		return nil, err
	}
	c := tls.Client(below, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// tlsConfig reads the files of a destination. It is nil for one without TLS.
func tlsConfig(d Destination) (*tls.Config, error) {
	if d.Scheme != HEPTLS {
		return nil, nil
	}
	c := &tls.Config{ServerName: d.TLS.ServerName, InsecureSkipVerify: d.TLS.Insecure, MinVersion: tls.VersionTLS12}
	if c.ServerName == "" {
		c.ServerName = d.Host
	}
	if d.TLS.CA != "" {
		pem, err := os.ReadFile(d.TLS.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s: %w", d.TLS.CA, errNoCertificate)
		}
	}
	if d.TLS.Cert != "" {
		cert, err := tls.LoadX509KeyPair(d.TLS.Cert, d.TLS.Key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// errNoCertificate says that a file is no CA.
var errNoCertificate = errors.New("no certificate in the file")
