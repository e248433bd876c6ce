package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// How a connection behaves. The client library neither buffers nor gives up
// behind our back: what is not in the stream is known to be not in the stream.
const (
	dialTimeout    = 2 * time.Second
	pingInterval   = 10 * time.Second
	pingsUnheard   = 2
	reconnectWait  = 250 * time.Millisecond
	reconnectSlack = 250 * time.Millisecond // jitter, so that a fleet does not come back as one
	checkTimeout   = 2 * time.Second
	requestTimeout = 5 * time.Second
	unlimited      = -1
)

// Options say where NATS is and who we are.
type Options struct {
	URL         string // nats://host:4222, several separated by commas; empty is the local server
	Name        string // of the service; shows in the server's list of connections
	InboxPrefix string // where replies go; empty is _INBOX_<name>, so that permissions can tell services apart

	Creds    string // file: user JWT and seed
	NKeySeed string // file: seed alone

	CA   string // file: roots to trust instead of the system's
	Cert string // file: client certificate; with Key
	Key  string // file

	Denied func(err error) // is told what the server does not let this user do, beside the log; may be nil

	InProcess nats.InProcessConnProvider // embedded server; URL is then only for show
}

// Conn is a connection to NATS that comes back whenever it is lost.
type Conn struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	url string // without secrets
	log *slog.Logger

	denied func(err error)
	closed chan struct{} // the client has made its last call

	mu      sync.Mutex
	changes chan struct{} // closed and replaced whenever the connection comes or goes
	lastErr error         // why it is away
	quiet   throttle
	reports throttle
}

// Connect returns at once, connected or not: a server that is away is waited
// for, without end. It fails for what waiting cannot cure: a malformed URL or
// a credentials file that cannot be read.
func Connect(o Options, log *slog.Logger) (*Conn, error) {
	servers, shown, err := parseURLs(o.URL)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		url:     shown,
		log:     log,
		denied:  o.Denied,
		closed:  make(chan struct{}),
		changes: make(chan struct{}),
		quiet:   throttle{every: 10 * time.Second},
		reports: throttle{every: time.Second},
	}
	opts, err := o.natsOptions()
	if err != nil {
		return nil, err
	}
	c.nc, err = nats.Connect(servers, append(opts, c.handlers()...)...)
	if err != nil {
		return nil, fmt.Errorf("NATS at %s: %w", shown, err)
	}
	c.js, err = jetstream.New(c.nc, jetstream.WithDefaultTimeout(requestTimeout))
	if err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("NATS at %s: %w", shown, err)
	}
	return c, nil
}

// parseURLs checks the list and returns it as the client wants it and as
// people may see it. No error shows a password.
func parseURLs(list string) (servers, shown string, err error) {
	if list == "" {
		list = nats.DefaultURL
	}
	var hosts []string
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			var ue *url.Error
			if errors.As(err, &ue) {
				err = ue.Err // without the URL
			}
			return "", "", fmt.Errorf("NATS URL: %w", err)
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return "", "", fmt.Errorf("NATS URL: scheme %q is none of nats, tls, ws, wss", u.Scheme)
		}
		if u.Hostname() == "" {
			return "", "", errors.New("NATS URL: no host")
		}
		hosts = append(hosts, u.Scheme+"://"+u.Host)
	}
	return list, strings.Join(hosts, ","), nil
}

func (o Options) natsOptions() ([]nats.Option, error) {
	prefix := o.InboxPrefix
	if prefix == "" {
		prefix = "_INBOX_" + Token(o.Name)
	}
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.CustomInboxPrefix(prefix),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(unlimited),
		nats.IgnoreAuthErrorAbort(), // a password put right on the server must not need a restart here
		nats.ReconnectBufSize(unlimited),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectSlack, reconnectSlack),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsUnheard),
		nats.FlusherTimeout(requestTimeout),
		nats.SkipSubjectValidation(), // ours are constants and tokens
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}
	if o.Cert != "" || o.Key != "" {
		opts = append(opts, nats.ClientCert(o.Cert, o.Key))
	}
	return o.withCredentials(opts)
}

// withCredentials reads the files once, so that a wrong name or content is
// known now and not at the first connect.
func (o Options) withCredentials(opts []nats.Option) ([]nats.Option, error) {
	if o.Creds != "" {
		text, err := os.ReadFile(o.Creds)
		if err != nil {
			return nil, fmt.Errorf("NATS credentials: %w", err)
		}
		if _, err := nkeys.ParseDecoratedJWT(text); err != nil {
			return nil, fmt.Errorf("NATS credentials %s: no user JWT: %w", o.Creds, err)
		}
		if _, err := nkeys.ParseDecoratedUserNKey(text); err != nil {
			return nil, fmt.Errorf("NATS credentials %s: no user seed: %w", o.Creds, err)
		}
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.NKeySeed != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKeySeed)
		if err != nil {
			return nil, fmt.Errorf("NATS seed %s: %w", o.NKeySeed, err)
		}
		opts = append(opts, opt)
	}
	return opts, nil
}

// handlers keep c and the log informed of what the client does on its own.
func (c *Conn) handlers() []nats.Option {
	up := func(nc *nats.Conn) {
		c.log.Info("connected to NATS", "url", c.url, "server", nc.ConnectedServerName())
		c.change(nil)
	}
	return []nats.Option{
		nats.ConnectHandler(up),
		nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if nc.IsClosed() || nc.IsDraining() {
				return
			}
			c.log.Warn("connection to NATS lost, reconnecting", "url", c.url, "err", err)
			c.change(err)
		}),
		nats.ClosedHandler(func(*nats.Conn) {
			c.change(nats.ErrConnectionClosed)
			close(c.closed)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if n, ok := c.quiet.allow(time.Now()); ok {
				c.log.Warn("waiting for NATS", "url", c.url, "count", n, "err", plain(err))
			}
			c.change(err)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			if n, ok := c.reports.allow(time.Now()); ok { // a refused publish is reported each time
				c.log.Warn("NATS reports", "url", c.url, "count", n, "subject", subject, "err", err)
			}
			if c.denied != nil && errors.Is(err, nats.ErrPermissionViolation) {
				c.denied(err)
			}
		}),
	}
}

// change wakes everyone who waits for the connection to come or go.
func (c *Conn) change(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
	close(c.changes)
	c.changes = make(chan struct{})
}

// changed returns a channel that is closed when the connection next comes or
// goes. Take it before asking [Conn.connected].
func (c *Conn) changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

func (c *Conn) connected() bool { return c.nc.IsConnected() }

// await returns nil as soon as NATS is there, or the error of ctx.
func (c *Conn) await(ctx context.Context) error {
	for {
		changed := c.changed()
		if c.connected() {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// flush brings what was published onto the wire, if there is one.
func (c *Conn) flush() {
	if c.connected() {
		_ = c.nc.FlushTimeout(checkTimeout) // best effort: nobody can be told
	}
}

// URL is where NATS is, without user or password.
func (c *Conn) URL() string { return c.url }

// Check asks the server for a sign of life. The error is fit for a person:
// "waiting for NATS at nats://10.0.0.1:4222: connection refused".
func (c *Conn) Check(ctx context.Context) error {
	if !c.connected() {
		c.mu.Lock()
		err := c.lastErr
		c.mu.Unlock()
		if err == nil {
			err = c.nc.LastError()
		}
		if err == nil {
			return fmt.Errorf("waiting for NATS at %s", c.url)
		}
		return fmt.Errorf("waiting for NATS at %s: %w", c.url, plain(err))
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("NATS at %s does not answer: %w", c.url, err)
	}
	return nil
}

// plain leaves of an error only its cause, in words: "connection refused",
// "stream not found".
func plain(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Description != "" {
		return errors.New(api.Description)
	}
	if errors.Is(err, nats.ErrNoServers) { // what the client says of a first connect that is refused everywhere
		return syscall.ECONNREFUSED
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err
}

// Close ends the connection, and with it every call to the log. Whatever uses
// it must have ended before.
func (c *Conn) Close() {
	c.nc.Close()
	<-c.closed
}
