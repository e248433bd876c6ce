package ctl

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/testcert"
)

// A papers is what a program shows to be let in.
type papers struct {
	testcert.Pair
	dir string
}

func newPapers(t *testing.T) papers {
	t.Helper()
	return papers{testcert.New(t), t.TempDir()}
}

func (p papers) file(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tls are the flags of a client that shows its certificate.
func (p papers) tls() []string {
	return []string{"--tls-ca", p.Cert, "--tls-cert", p.Cert, "--tls-key", p.Key}
}

// mutual makes a server ask its clients for certificates, too.
func (p papers) mutual(t *testing.T, o *server.Options) {
	t.Helper()
	o.TLS, o.TLSTimeout = true, 5
	o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{p.Load(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.Roots(t)}
}

// serve runs a server on a free port until the test ends and returns its address.
func serve(t *testing.T, o *server.Options) string {
	t.Helper()
	o.Host, o.Port, o.StoreDir, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, t.TempDir(), true, true
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(soon) {
		t.Fatal("server not ready")
	}
	return ns.Addr().String()
}

// seed makes a user's nkey: the file of its seed and what the server knows it by.
func (p papers) seed(t *testing.T) (file, public string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	text, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err = pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return p.file(t, "tap.nk", text), public
}

// service runs a service, as its program would, until it ends or ctx does.
func service(t *testing.T, ctx context.Context, name string, s app.Service, args ...string) (exit int) {
	t.Helper()
	var said strings.Builder
	if _, code, done := app.Parse(name, "", s, append(args, "--no-make-streams"), io.Discard, &said, kong.Vars{"http": ""}); done {
		t.Fatalf("%s: exit %d: %s", name, code, &said)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("service", name)
	return app.Run(ctx, log, app.Base(log), s.Module())
}

// The example server, with certificates asked for and a tap that has an nkey,
// lets events through from a file to the database, to programs that know of it
// by their flags alone.
func TestPrograms_areLetInByTheirFlags(t *testing.T) {
	p := newPapers(t)
	t.Setenv("SIPTRACE_NATS_CERT", p.Cert)
	t.Setenv("SIPTRACE_NATS_KEY", p.Key)
	for _, user := range []string{"ADMIN", "CTL", "TAP", "DB_WRITER", "FORWARDER", "REPLAY", "SYS"} {
		t.Setenv("SIPTRACE_PASSWORD_"+user, "secret")
	}
	o, err := server.ProcessConfigFile(filepath.Join("..", "..", "..", "deploy", "nats", "nats-server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	p.mutual(t, o)
	seedFile, public := p.seed(t)
	for i, u := range o.Users {
		if u.Username == "tap" {
			o.Nkeys = append(o.Nkeys, &server.NkeyUser{Nkey: public, Permissions: u.Permissions, Account: u.Account})
			o.Users = append(o.Users[:i:i], o.Users[i+1:]...)
			break
		}
	}
	addr := serve(t, o)
	as := func(user string) []string {
		return append([]string{"--nats", "tls://" + user + ":secret@" + addr}, p.tls()...)
	}
	must := func(args ...string) string {
		t.Helper()
		code, out, said := run(t, "", args...)
		if code != 0 {
			t.Fatalf("ctl %s: exit %d\n%s%s", args[:2], code, out, said)
		}
		return out + said
	}
	contains(t, must(append([]string{"stream", "apply", "--durable", "db-writer", "--yes"}, as("admin")...)...), "4 changes made")

	tap := append([]string{"--nats", "tls://" + addr, "--nkey", seedFile, "--data", "off", "--once",
		"--in", "pcap:" + filepath.Join("..", "..", "capture", "testdata", "sip_plain.pcapng.gz")}, p.tls()...)
	if code := service(t, t.Context(), "tap", new(app.TapOptions), tap...); code != 0 {
		t.Fatalf("tap: exit %d", code)
	}
	database := "sqlite:" + filepath.Join(t.TempDir(), "siptrace.db")
	stop := background(t, func(ctx context.Context) error {
		if code := service(t, ctx, "db-writer", new(app.WriterOptions), append(as("db-writer"), "--store", database)...); code != 0 {
			return fmt.Errorf("db-writer: exit %d", code)
		}
		return nil
	})
	await(t, "the messages are stored", func() bool {
		_, out, _ := run(t, "", append([]string{"stream", "status"}, as("ctl")...)...)
		code, found, _ := run(t, "", "search", "--store", database, "--since", "20000d", "--json")
		return strings.Contains(out, "db-writer") && code == 0 && strings.Count(found, "\n") > 3
	})
	stop()
	contains(t, must(append([]string{"trace", "off", "--reason", "test"}, as("ctl")...)...), "Disabled")

	for _, tt := range []struct {
		what string
		args []string
		want string
	}{
		{"a wrong password", append([]string{"--nats", "tls://ctl:wrong@" + addr}, p.tls()...), "authorization"},
		{"no password", append([]string{"--nats", "tls://" + addr}, p.tls()...), "authorization"},
		{"no roots", []string{"--nats", "tls://ctl:secret@" + addr, "--tls-cert", p.Cert, "--tls-key", p.Key}, "certificate"},
		{"no certificate", []string{"--nats", "tls://ctl:secret@" + addr, "--tls-ca", p.Cert}, addr},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel() // each waits until it gives up
			code, out, said := run(t, "", append([]string{"trace", "check"}, tt.args...)...)
			if code != app.ExitFailed || out != "" || !strings.Contains(strings.ToLower(said), tt.want) {
				t.Errorf("exit %d, said %q%q, want %q in it", code, out, said, tt.want)
			}
			if strings.Contains(said, "secret") || strings.Contains(said, "wrong") {
				t.Errorf("the password is shown: %q", said)
			}
		})
	}
}

func TestPrograms_areLetInByCredentials(t *testing.T) {
	p := newPapers(t)
	o, creds := operated(t, p)
	p.mutual(t, o)
	addr := serve(t, o)
	flags := append([]string{"--nats", "tls://" + addr, "--creds", creds}, p.tls()...)
	code, out, said := run(t, "", append([]string{"stream", "apply", "--yes"}, flags...)...)
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, said)
	}
	contains(t, said, "3 changes made")
	code, _, said = run(t, "", append([]string{"trace", "check", "--nats", "tls://" + addr}, p.tls()...)...)
	if code != app.ExitFailed {
		t.Errorf("exit %d without credentials, want %d", code, app.ExitFailed)
	}
	contains(t, strings.ToLower(said), "authorization")
}

// operated are the options of a server that trusts an operator, who has made
// an account, which has made a user, whose credentials are in a file.
func operated(t *testing.T, p papers) (*server.Options, string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		k, err := make()
		must(err)
		public, err := k.PublicKey()
		must(err)
		return k, public
	}
	operatorKey, operator := pair(nkeys.CreateOperator)
	accountKey, account := pair(nkeys.CreateAccount)
	_, system := pair(nkeys.CreateAccount)
	userKey, user := pair(nkeys.CreateUser)

	oc := jwt.NewOperatorClaims(operator)
	oc.SystemAccount = system
	ac := jwt.NewAccountClaims(account)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	accountJWT, err := ac.Encode(operatorKey)
	must(err)
	systemJWT, err := jwt.NewAccountClaims(system).Encode(operatorKey)
	must(err)
	userJWT, err := jwt.NewUserClaims(user).Encode(accountKey)
	must(err)
	seed, err := userKey.Seed()
	must(err)
	text, err := jwt.FormatUserConfig(userJWT, seed)
	must(err)

	known := new(server.MemAccResolver)
	must(known.Store(account, accountJWT))
	must(known.Store(system, systemJWT))
	o := &server.Options{JetStream: true, TrustedOperators: []*jwt.OperatorClaims{oc}, SystemAccount: system, AccountResolver: known}
	return o, p.file(t, "ctl.creds", text)
}
