package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// args splits a command line at white space.
func args(line string) []string { return strings.Fields(line) }

func TestCommandLine_whatIsWrongIsSaidBeforeAnythingStarts(t *testing.T) {
	const sqlite = "db-writer --store sqlite:x.db "
	const forwarder = "hep-forwarder --to hep+udp://h "
	tests := []struct {
		line  string
		words string // that the message has: the flag or its value, and what to use
	}{
		{"tap --nope", "--nope"},
		{"tap extra", "extra"},
		{"tap --in :9060", ":9060 hep+udp://:9060"},
		{"tap --in ftp://:21", "ftp hep+tcp hep+tls hep+udp"},
		{"tap --in udp://:9060", "udp hep+udp"},
		{"tap --in hep+udp://:99999", "99999"},
		{"tap --in hep+udp://:9060?nope=1", "nope auth rcvbuf"},
		{"tap --in hep+udp://:9060?rcvbuf=lots", "rcvbuf 32MiB"},
		{"tap --in hep+tls://:9061", "cert= key="},
		{"tap --in pcap:", "pcap:"},
		{"tap --once", "--once pcap:FILE"},
		{"tap --nats http://h", "http nats tls"},
		{"tap --nats nats://", "NATS host"},
		{"tap --mode some", "--mode all rules"},
		{"tap --compress gzip", "--compress s2 none"},
		{"tap --buffer lots", "--buffer 64MiB"},
		{"tap --stream-age long", "--stream-age 7d"},
		{"tap --agent-id x", "--agent-id"},
		{"tap --log-level loud", "loud debug info warn error"},
		{"tap --log-format xml", "xml text json"},
		{"tap --http nonsense", "--http nonsense HOST:PORT"},
		{"tap --http 127.0.0.1:99999", "--http 99999 HOST:PORT"},
		{"tap --config /nonexistent/tap.yaml", "/nonexistent/tap.yaml"},

		{"db-writer", "--store postgres://"},
		{"db-writer --store mysql://h/db", "mysql postgres:// sqlite:"},
		{"db-writer --store sqlite:", "sqlite:FILE"},
		{"db-writer --store postgres://%zz", "store URL"},
		{sqlite + "--batch 0", "--batch"},
		{sqlite + "--connections 0", "--connections"},
		{sqlite + "--linger=-1s", "--linger 90s"},
		{sqlite + "--partition week", "--partition day hour"},
		{sqlite + "--durability maybe", "--durability full relaxed"},
		{sqlite + "--table Bad-Name", "Bad-Name letters"},
		{sqlite + "--durable a.b", "--durable a.b letters"},

		{"hep-forwarder", "--to hep+udp://"},
		{"hep-forwarder --to homer", "homer hep+udp:// sip:"},
		{"hep-forwarder --to http://h", "http hep+tcp://"},
		{"hep-forwarder --to hep+udp://h?version=4", "version 1, 2 or 3"},
		{"hep-forwarder --to hep+tcp://h?version=2", "version 2 hep+udp://"},
		{"hep-forwarder --to hep+udp://h?nope=1", "nope version auth"},
		{"hep-forwarder --to sip:h;transport=tcp", "tcp hep+tcp://"},
		{forwarder + "--to hep+udp://h", "hep+udp://h:9060 twice"},
		{forwarder + "--start some", "--start all new"},
		{"hep-forwarder --allow 10.0.0.0/99", "10.0.0.0/99"},

		{"ctl nope", "nope"},
		{"ctl trace", "on off check"},
		{"ctl trace maybe", "maybe"},
		{"ctl trace off --for long", "--for 7d"},
		{"ctl tail --nats http://h", "http nats tls"},
		{"ctl tail --color maybe", "--color auto always never"},
		{"ctl search --addr x", "x 10.0.0.0/8"},
		{"ctl search --from x", "x 08:00"},
		{"ctl search --since 1h --from 08:00", "--since --from"},
		{"ctl search --store mysql://h/db", "mysql postgres:// sqlite:"},
		{"ctl flow", "call-id"},
		{"ctl hep decode", "file"},
		{"ctl demo ftp://h", "ftp hep+udp://"},
		{"ctl up --in ftp://h", "ftp hep+udp"},
		{"ctl up --nats-listen x", "--nats-listen HOST:PORT"},
		{"ctl up --dir=", "--dir"},
		{"ctl schema print --store foo:x", "foo postgres:// sqlite:"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			line := args(tt.line)
			r := run(t, "", line[0], line[1:]...)
			if r.code != 2 {
				t.Errorf("exit code %d, want 2", r.code)
			}
			if r.out != "" {
				t.Errorf("standard output %q, want nothing", r.out)
			}
			for _, w := range strings.Fields(tt.words) {
				if !strings.Contains(r.errors, w) {
					t.Errorf("the message does not say %q", w)
				}
			}
			if strings.Contains(r.errors, `"msg":`) || len(r.errors) > 500 {
				t.Error("more is said than what is wrong")
			}
			if !strings.HasSuffix(r.errors, "\ntry: "+line[0]+" --help\n") {
				t.Error("the message does not end with where to look")
			}
			if t.Failed() {
				t.Logf("said:\n%s", r.errors)
			}
		})
	}
}

func TestUp_aTakenPortIsSaidPlainly(t *testing.T) {
	tcp, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp4", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	busyTCP, busyUDP := tcp.Addr().String(), udp.LocalAddr().String()
	tests := []struct{ line, port, hint string }{
		{"ctl up --dir up --in hep+udp://" + busyUDP + " --http 127.0.0.1:0 --nats-listen 127.0.0.1:0", busyUDP, "in use"},
		{"ctl up --dir up --in hep+tcp://" + busyTCP + " --http 127.0.0.1:0 --nats-listen 127.0.0.1:0", busyTCP, "in use"},
		{"ctl up --dir up --in hep+udp://127.0.0.1:0 --nats-listen 127.0.0.1:0 --http " + busyTCP, busyTCP, "--http"},
		{"ctl up --dir up --in hep+udp://127.0.0.1:0 --http 127.0.0.1:0 --nats-listen " + busyTCP, busyTCP, "another program"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			line := args(tt.line)
			r := run(t, "", line[0], line[1:]...)
			if r.code != 1 {
				t.Errorf("exit code %d, want 1", r.code)
			}
			if !strings.Contains(r.errors, tt.port) || !strings.Contains(r.errors, tt.hint) {
				t.Errorf("the message does not say %q and %q", tt.port, tt.hint)
			}
			if n := strings.Count(r.errors, `"ERROR"`); n != 1 {
				t.Errorf("%d lines say that it went wrong, want 1", n)
			}
			if strings.Contains(r.errors, "goroutine") || strings.Contains(r.errors, "fx") {
				t.Error("the message speaks of the program's inside")
			}
			if t.Failed() {
				t.Logf("said:\n%s", r.errors)
			}
		})
	}
}

// configured are command lines with a secret in every place where one can be.
var configured = []struct{ command, flags string }{
	{"tap", "--in hep+udp://:9060?auth=geheim --in hep+tcp://:9060?auth=geheim&conns=5 --agent-id 7 --stream-age 1d12h --stream-max 5GiB " +
		"--nats nats://u:geheim@h:4222,nats://v:geheim@i:4222"},
	{"db-writer", "--store postgres://u:geheim@h/db?sslmode=disable --no-auto-schema --linger 1s --create-tables"},
	{"db-writer", "--store postgres://u@h/db?password=geheim"},
	{"hep-forwarder", "--to hep+udp://h?auth=geheim --to hep+udp://i?fallback=hep%2Btcp://j?auth%3Dgeheim --to sip:10.1.1.1:5888 --nats nats://u:geheim@h:4222"},
	{"ctl up", "--in hep+udp://:9060?auth=geheim --dir /data --stream-max 1GiB"},
}

func TestPrintConfig_hidesSecretsAndIsTakenBack(t *testing.T) {
	for _, tt := range configured {
		t.Run(tt.command, func(t *testing.T) {
			line := args(tt.command + " " + tt.flags + " --print-config")
			r := run(t, "", line[0], line[1:]...)
			if r.code != 0 {
				t.Fatalf("exit code %d\n%s", r.code, r.errors)
			}
			if strings.Contains(r.out, "geheim") {
				t.Errorf("shows a secret:\n%s", r.out)
			}
			for _, arg := range line {
				if strings.HasPrefix(arg, "sip:") && !strings.Contains(r.out, arg) {
					t.Errorf("does not show %s, which is no secret:\n%s", arg, r.out)
				}
			}
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(r.out), 0o600); err != nil {
				t.Fatal(err)
			}
			line = args(tt.command + " --config " + file + " --print-config")
			if again := run(t, "", line[0], line[1:]...); again.code != 0 || again.out != r.out {
				t.Errorf("--config of it: exit code %d, and gives\n%s%s\nwant\n%s", again.code, again.out, again.errors, r.out)
			}
		})
	}
}

func TestConfiguration_flagsComeBeforeEnvironmentAndThatBeforeTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("agent-name: file\nmode: rules\ncompress: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(environment(t), "SIPTRACE_AGENT_NAME=environment", "SIPTRACE_MODE=all")
	r := runWith(t, env, "", "tap", "--config", file, "--agent-name", "flag", "--print-config")
	var got struct {
		AgentName string `yaml:"agent-name"`
		Mode      string
		Compress  string
	}
	if err := yaml.Unmarshal([]byte(r.out), &got); err != nil || r.code != 0 {
		t.Fatalf("exit code %d, %v\n%s", r.code, err, r.errors)
	}
	if got.AgentName != "flag" || got.Mode != "all" || got.Compress != "none" {
		t.Errorf("flag, environment, file give %+v", got)
	}
}

func TestConfiguration_aNameThatTheFileGetsWrongIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("agent_nmae: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "tap", "--config", file, "--check")
	if r.code != 2 || !strings.Contains(r.errors, "agent_nmae") {
		t.Errorf("exit code %d, %q, want 2 and the name", r.code, r.errors)
	}
}

func TestEnvironment_aVersionOfTheOperatorsIsNotOurs(t *testing.T) {
	env := append(environment(t), "SIPTRACE_VERSION=1.2", "SIPTRACE_HELP=1", "SIPTRACE_CHECK=no")
	if r := runWith(t, env, "", "tap", "--check"); r.code != 0 || r.out != "tap: configuration is good\n" {
		t.Errorf("exit code %d, %q %q, want 0", r.code, r.out, r.errors)
	}
}

func TestCheck_ofAGoodConfigurationStartsNothing(t *testing.T) {
	for _, tt := range configured {
		t.Run(tt.command, func(t *testing.T) {
			line := args(tt.command + " " + tt.flags + " --check")
			r := run(t, "", line[0], line[1:]...)
			if r.code != 0 || r.out != tt.command+": configuration is good\n" || r.errors != "" {
				t.Errorf("exit code %d, %q, %q, want 0 and one line", r.code, r.out, r.errors)
			}
		})
	}
}

func TestHelp_showsExamples(t *testing.T) {
	for _, line := range []string{
		"tap", "db-writer", "hep-forwarder", "ctl", "ctl up", "ctl search", "ctl flow", "ctl tail", "ctl hep decode", "ctl health",
	} {
		t.Run(line, func(t *testing.T) {
			a := append(args(line), "--help")
			out := must(t, a[0], a[1:]...)
			example := "  " + line + " "
			if !strings.Contains(out, "Example") || !strings.Contains(out, example) && !strings.Contains(out, " "+line+" -") {
				t.Errorf("no example of %s:\n%s", line, out)
			}
		})
	}
}
